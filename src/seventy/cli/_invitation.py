"""What `serve` prints for phones on the same network: an address, and a QR code that leads there."""

import socket
import sys
from typing import TYPE_CHECKING

from seventy.cli import _session as session
from seventy.language import t

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seventy.server.pairing import Pairing


def lan_address(host: str, port: int) -> str | None:
    """Return the address at which other devices find a server listening on `host`; None if it is local only."""
    from seventy.server.guard import is_loopback

    if is_loopback(host):
        return None
    if host in ("0.0.0.0", "::"):
        found = _own_address()
        return f"http://{found}:{port}" if found else None
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def show(pairing: "Pairing", users: "Sequence[str]", is_keyed: bool) -> None:
    """Print the address of the page and, on a terminal, a QR code for a phone.

    With keys, the code is the first user's, good once and for ten minutes; others get theirs in the page. A log gets no
    code.
    """
    if pairing.address is None:
        return
    session.say(t("on this network: {address}", address=pairing.address))
    if not sys.stderr.isatty():
        return
    import segno

    link = pairing.link(pairing.code(users[0])) if is_keyed else pairing.address
    segno.make(link, error="l", micro=False).terminal(out=sys.stderr, border=2, compact=True)
    if is_keyed:
        session.say(t(
            "for a phone of {user}, once and within ten minutes: {link} (more in the page's settings)",
            user=users[0], link=link,
        ))


def _own_address() -> str | None:
    """This machine's address in the network that it reaches others by; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # An address of documentation (RFC 5737): only the way to it is asked for.
            probe.connect(("192.0.2.1", 9))
            found = str(probe.getsockname()[0])
        except OSError:
            return None
    return None if found.startswith("127.") else found
