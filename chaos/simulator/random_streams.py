"""Sources of randomness: one for each purpose, all made from a run's seed."""

import random


def random_stream(seed: int, purpose: str) -> random.Random:
    """The randomness for one purpose of one seed, independent of all others.

    Leaving one fault out then changes as little as possible of the rest. The names of purposes
    are part of what a seed means: renaming one changes every run.
    """
    return random.Random(f"{seed}/{purpose}")
