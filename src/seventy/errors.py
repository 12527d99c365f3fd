"""What can go wrong in a way the user can mend."""


class SeventyError(Exception):
    """Says what happened, with the values, and what to do next, in one sentence.

    The command line prints it without a traceback and exits with 1.
    """
