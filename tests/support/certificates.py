"""A certificate authority for the tests: PEM files for servers on this machine."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority's certificate; a server's certificate for 127.0.0.1 and its key."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def create(cls, folder: Path) -> "Certificates":
        folder.mkdir(parents=True, exist_ok=True)
        authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        authority_name, server_name = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            for name in ("Nightshift's tests", "127.0.0.1")
        )
        now = datetime.datetime.now(datetime.UTC)
        draft = (
            x509.CertificateBuilder()
            .issuer_name(authority_name)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
        authority = (
            draft.subject_name(authority_name)
            .serial_number(x509.random_serial_number())
            .public_key(authority_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(identifier, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        places = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        server = (
            draft.subject_name(server_name)
            .serial_number(x509.random_serial_number())
            .public_key(server_key.public_key())
            .add_extension(x509.SubjectAlternativeName(places), critical=False)
            .add_extension(issuer, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        made = cls(folder / "authority.pem", folder / "server.pem", folder / "server.key")
        made.authority.write_bytes(authority.public_bytes(Encoding.PEM))
        made.certificate.write_bytes(server.public_bytes(Encoding.PEM))
        plain = server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        made.key.write_bytes(plain)
        return made

    def for_server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context
