"""The cluster's key: one secret, from which each machine makes Ray's token and a certificate of its own.

`start` makes the key and `join` is given it. A certificate authority follows from the key, so that every machine signs
its certificate itself and all trust each other. Who has the key can run code on every machine.
"""

import datetime
import hmac
import ipaddress
import secrets
import ssl
from pathlib import Path

from seventy.errors import SeventyError

# Order of the group of P-256 (FIPS 186-4, D.1.2.3).
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# Nobody renews these certificates, and cheap machines' clocks may be years behind: a cluster ends with its key.
_FROM, _UNTIL = datetime.datetime(2000, 1, 1), datetime.datetime(2099, 1, 1)


def new_key() -> str:
    """Make a key: 256 random bits."""
    return secrets.token_urlsafe(32)


def last_key(folder: Path) -> str | None:
    """Return the key of the cluster that this machine was in last; None if there was none."""
    file = folder / "key"
    return file.read_text() if file.exists() else None


def write(folder: Path, key: str, address: str) -> None:
    """Write the key's token, authority and a certificate for this machine's address into a folder that its owner reads.

    Raises SeventyError if the key is not one that `new_key` made.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import CertificateBuilder as Builder
    from cryptography.x509.oid import NameOID

    if len(key) != 43:
        raise SeventyError("a cluster's key has 43 characters, this one {n}; copy what start printed", n=len(key))
    authority = ec.derive_private_key(_number(key), ec.SECP256R1())
    own = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "seventy cluster")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())

    def certificate(public: ec.EllipticCurvePublicKey, subject: x509.Name, is_authority: bool) -> Builder:
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"), False,
        )  # fmt: skip
        return (
            Builder().subject_name(subject).issuer_name(name).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(_FROM).not_valid_after(_UNTIL)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.KeyUsage(digital_signature=not is_authority, key_cert_sign=is_authority,
                                         crl_sign=is_authority, **usage), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        )  # fmt: skip

    root = certificate(authority.public_key(), name, True).add_extension(identifier, critical=False)
    addresses = [x509.IPAddress(ipaddress.ip_address(each)) for each in dict.fromkeys((address, "127.0.0.1"))]
    leaf = certificate(own.public_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)]), False)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([*addresses, x509.DNSName("localhost")]), critical=False)
    pem = serialization.Encoding.PEM
    secret = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for file, content in {
        "key": key.encode(), "token": _derived(key, "token").hex().encode(), "private.pem": secret,
        "authority.pem": root.sign(authority, hashes.SHA256()).public_bytes(pem),
        "certificate.pem": leaf.sign(authority, hashes.SHA256()).public_bytes(pem),
    }.items():  # fmt: skip
        (folder / file).touch(mode=0o600)
        (folder / file).write_bytes(content)


def ray_environment(folder: Path) -> dict[str, str]:
    """Return the variables by which Ray asks for token and certificates, sends no statistics, and slows no worker.

    A machine waits 10 s for the first one, and is then started anew until that is back (_keep.py); Ray's own 60 s are
    longer than a restart.
    """
    return {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "certificate.pem"), "RAY_TLS_SERVER_KEY": str(folder / "private.pem"),
        "RAY_TLS_CA_CERT": str(folder / "authority.pem"), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0", "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    }  # fmt: skip


def server_context(folder: Path) -> ssl.SSLContext:
    """TLS that lets in only who has a certificate of the cluster."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "certificate.pem", folder / "private.pem")
    return context


def client_context(folder: Path) -> ssl.SSLContext:
    """TLS that shows this machine's certificate, and trusts only those of the cluster."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=folder / "authority.pem")
    context.load_cert_chain(folder / "certificate.pem", folder / "private.pem")
    return context


def _derived(key: str, purpose: str) -> bytes:
    return hmac.digest(key.encode(), purpose.encode(), "sha256")


def _number(key: str) -> int:
    """A private number of the curve: 512 bits modulo the order are as good as uniform."""
    wide = _derived(key, "authority, high") + _derived(key, "authority, low")
    return int.from_bytes(wide, "big") % (_ORDER - 1) + 1
