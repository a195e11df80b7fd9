"""A certificate authority for one broker, its cloud and its devices: small, made of the `cryptography` package.

ECDSA on P-256, which everything that speaks TLS 1.2 understands. There are no revocation lists: brokers and clients
differ too much in what they make of them. Who is to be kept out is taken off the broker's access list, and certificates
do not live long.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
_BACKDATED = timedelta(days=1)
"""Before now: for clocks that are somewhat slow."""


def new_key() -> bytes:
    """A private key, PKCS #8 in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True)
class Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, key: bytes, name: str, now: datetime) -> Self:
        """One for ten years. Raises ValueError for what is no such key."""
        private = _key(key)
        subject = _named(name)
        builder = _builder(subject, subject, private.public_key(), now, AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(authority=True), critical=True)
        return cls(private, builder.sign(private, hashes.SHA256()))

    @classmethod
    def of(cls, key: bytes, certificate: bytes) -> Self:
        """Raises ValueError for what are no such files."""
        return cls(_key(key), x509.load_pem_x509_certificate(certificate))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def for_server(self, key: bytes, names: tuple[str, ...], now: datetime, days: int) -> bytes:
        """A certificate for a broker's host names and addresses, in PEM. Raises ValueError."""
        return self._issue(key, names[0], now, days, ExtendedKeyUsageOID.SERVER_AUTH, tuple(map(_general, names)))

    def for_client(self, key: bytes, name: str, now: datetime, days: int) -> bytes:
        """A certificate for a device or a cloud: its CN is who it is. Raises ValueError."""
        return self._issue(key, name, now, days, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def _issue(
        self,
        key: bytes,
        name: str,
        now: datetime,
        days: int,
        purpose: x509.ObjectIdentifier,
        names: tuple[x509.GeneralName, ...],
    ) -> bytes:
        public = _key(key).public_key()
        builder = _builder(_named(name), self.certificate.subject, public, now, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def server_names(certificate: bytes) -> tuple[str, ...]:
    """The host names and addresses that a broker's certificate is for. Raises ValueError."""
    extensions = x509.load_pem_x509_certificate(certificate).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise ValueError("it names no host") from error
    return tuple(str(name.value) for name in names)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ValueError("it is encrypted") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("it is not a key for ECDSA")  # noqa: TRY004 - a file's content
    return key
