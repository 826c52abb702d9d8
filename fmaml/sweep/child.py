"""A run of a sweep, in a process of its own: the command line as a shell would start it, but it ends with its sweep."""

import os
import runpy
import signal
import threading


def stop_with_parent() -> None:
    """Once standard input ends, as the process that holds its other end does, stop as on SIGTERM: save, then exit."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be in the way at exit
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    stop_with_parent()
    runpy.run_module("fmaml", run_name="__main__", alter_sys=True)
