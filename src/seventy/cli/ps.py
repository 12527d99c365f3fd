import time

from seventy.cli.models import print_rows
from seventy.language import t
from seventy.runtime import reservations
from seventy.sizes import size


def ps() -> None:
    """Show which programs of this machine have a model loaded, and what memory they take."""
    rows = [(t("PID"), t("MEMORY"), t("PROMISED"), t("SINCE"), t("COMMAND"))]
    for each in reservations.holders():
        hours, rest = divmod(int(time.time() - each.since), 3600)
        since = f"{hours}h{rest // 60:02}m" if hours else f"{rest // 60}m{rest % 60:02}s"
        rows.append((str(each.pid), size(each.resident), size(each.nbytes), since, each.command))
    print_rows(rows)
