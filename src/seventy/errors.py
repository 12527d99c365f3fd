"""What can go wrong in a way the user can mend."""

import errno


class SeventyError(Exception):
    """Says what happened, with the values, and what to do next, in one sentence.

    The command line prints it without a traceback and exits with 1.
    """


def trouble(error: BaseException) -> str | None:
    """Describe an error of the operating system in a sentence; return None for other errors."""
    if isinstance(error, MemoryError):
        return "there is not enough memory; close other programs, or take a smaller model or --context"
    if isinstance(error, RuntimeError):
        # Python has no class of its own for it.
        full = "can't start new thread" in str(error)
        return "the system starts no more threads; ulimit -u says how many may be" if full else None
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        hints = {
            errno.ENOSPC: "; make room on the disk", errno.EMFILE: "; ulimit -n says how many files may be open",
            errno.ENFILE: "; too many files are open on this machine", errno.EAGAIN: "; ulimit -u limits processes",
            errno.EBADF: "; stdout is closed, or cannot be written to",
            errno.EIO: "; the disk may be failing", errno.ENOMEM: "; close other programs or take a smaller model",
        }  # fmt: skip
        return f"{where}{error.strerror or error}{hints.get(error.errno or 0, '')} (--debug shows where)"
    return None
