"""Run on a host as a file: what a port of another host answers to who has neither certificate nor token."""

import contextlib
import socket
import ssl
import sys


def answers(host: str, port: int) -> str:
    """What a port says to plain HTTP, and to HTTP/2 over TLS without a certificate."""
    with socket.create_connection((host, port), 5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        said = receive(plain)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    encrypted = b""
    with (
        contextlib.suppress(ssl.SSLError),
        socket.create_connection((host, port), 5) as raw,
        context.wrap_socket(raw, server_hostname=host) as tls,
    ):
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        encrypted = receive(tls)
    return f"{'401' if b' 401 ' in said else said} {encrypted!r}"


def receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(200)
    except OSError:
        return b""


if __name__ == "__main__":
    print(answers(sys.argv[1], int(sys.argv[2])))
