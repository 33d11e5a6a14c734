"""Issue the certificates of MinIO and MLflow by an authority of their own, whose key is kept nowhere.

So nobody can issue another one. New certificates come with a new authority (docs/how-to/operate.md, Secrets).
"""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVICES = ("minio", "mlflow")
VALID_DAYS = 730
LOOPBACK = ip_address("127.0.0.1")  # for `kubectl port-forward`


def hosts(service: str, namespace: str) -> tuple[str, ...]:
    """The names by which pods and port-forwards reach a Service."""
    inside = (service, f"{service}.{namespace}", f"{service}.{namespace}.svc")
    return (*inside, f"{inside[-1]}.cluster.local", "localhost")


def issue(names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """A new authority, and a certificate for the host names of each service.

    Returns:
        PEM texts by service and by key of a Secret of type kubernetes.io/tls: `tls.crt`, `tls.key`, `ca.crt`.
    """
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key)
    found = {}
    for service, given in names.items():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(service, given, key.public_key(), authority, authority_key)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        found[service] = {"tls.crt": _pem(certificate), "tls.key": private.decode(), "ca.crt": _pem(authority)}
    return found


def bundle(authorities: Sequence[str]) -> str:
    """The authorities that this image trusts, then `authorities`: clients also reach public services."""
    trusted = Path(os.environ.get("SSL_CERT_FILE") or certifi.where()).read_text(encoding="utf-8")
    return "\n".join([trusted.rstrip(), *(text.strip() for text in dict.fromkeys(authorities)), ""])


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(subject: str, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, _named(subject), public, x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of nodes differ
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = "mantis-kfp authority"
    built = _begun(name, _named(name), key.public_key())
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return built.add_extension(_usage(signs_certificates=True), critical=True).sign(key, hashes.SHA256())


def _certificate(
    service: str,
    names: Sequence[str],
    public: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    alternatives = x509.SubjectAlternativeName([*map(x509.DNSName, names), x509.IPAddress(LOOPBACK)])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    built = _begun(service, authority.subject, public)
    built = built.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    built = built.add_extension(alternatives, critical=False).add_extension(issuer, critical=False)
    built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return built.add_extension(_usage(signs_certificates=False), critical=True).sign(authority_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
