"""The cluster's key: who has it is let in, who has another or none is not."""

import socket
import ssl
import threading
from pathlib import Path

import pytest

from seventy.cluster import key
from seventy.errors import SeventyError

pytest.importorskip("cryptography")


def meet(server: Path, client: ssl.SSLContext) -> bytes:
    """What a client gets that talks to a server."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with key.server_context(server).wrap_socket(theirs, server_side=True) as tls:
                tls.sendall(b"let in")
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname="127.0.0.1") as tls:
            return tls.recv(100)
    except OSError as error:
        return type(error).__name__.encode()
    finally:
        thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_key_lets_in_and_another_or_none_does_not(tmp_path: Path) -> None:
    made = key.new_key()
    key.write(tmp_path / "a", made, "10.0.0.1")
    key.write(tmp_path / "b", made, "10.0.0.2")
    key.write(tmp_path / "other", key.new_key(), "10.0.0.1")
    assert (tmp_path / "a" / "token").read_text() == (tmp_path / "b" / "token").read_text()
    assert (tmp_path / "a" / "token").read_text() != (tmp_path / "other" / "token").read_text()
    assert meet(tmp_path / "a", key.client_context(tmp_path / "b")) == b"let in"
    assert meet(tmp_path / "a", key.client_context(tmp_path / "other")) != b"let in"
    nobody = ssl.create_default_context(cafile=tmp_path / "a" / "authority.pem")
    assert meet(tmp_path / "a", nobody) != b"let in"
    strict = key.client_context(tmp_path / "b")
    # What Python asks of certificates from 3.13 on.
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    assert meet(tmp_path / "a", strict) == b"let in"


def test_only_its_owner_reads_it_and_what_is_no_key_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    key.write(folder, key.new_key(), "10.0.0.1")
    assert folder.stat().st_mode & 0o77 == 0
    assert all(file.stat().st_mode & 0o77 == 0 for file in folder.iterdir())
    with pytest.raises(SeventyError, match="this one 5"):
        key.write(folder, "short", "10.0.0.1")
