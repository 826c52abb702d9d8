"""Reinforcement learning: policies, rollouts and their objective, as pure functions that vmap and differentiate."""
