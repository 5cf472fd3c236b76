"""Reward models, chosen by what they teach."""
