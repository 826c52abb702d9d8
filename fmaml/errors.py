"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can put right. The message says where, what was given, the rule, and the cure."""
