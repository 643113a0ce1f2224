"""HTTPS: certificates and time limits."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from imgassets.manifests import Outcome
from imgassets_tests.download.conftest import Partition, stored
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server, drip

JPEG = image_bytes()


@pytest.fixture
def certificate(tmp_path: Path, server: Server) -> Path:
    """Switch the server to TLS; return the path of its self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_path = tmp_path / "key.pem"
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path, key_path)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    return path


def https(url: str) -> str:
    return url.replace("http://", "https://")


def test_an_image_is_downloaded_over_tls(
    partition: Partition, server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    (row,) = partition.run(https(server.add("/a.jpg", JPEG)))
    assert row.outcome is Outcome.OK, row.error
    assert partition.files == stored(JPEG)


@pytest.mark.usefixtures("certificate")
def test_an_untrusted_certificate_is_refused_without_a_retry(
    partition: Partition, server: Server
) -> None:
    (row,) = partition.run(https(server.add("/a.jpg", JPEG)))
    assert (row.outcome, row.attempts) == (Outcome.CONNECTION_ERROR, 1)
    assert re.match(
        "the server's certificate is not valid: [^_]*self-signed certificate[^_]*$", str(row.error)
    )


def test_a_certificate_of_another_host_is_refused_without_a_retry(
    partition: Partition, server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server.add("/a.jpg", JPEG)
    (row,) = partition.run(https(server.url("/a.jpg", host="localhost")))
    assert (row.outcome, row.attempts) == (Outcome.CONNECTION_ERROR, 1)
    assert re.match("the server's certificate is not valid: .*'localhost'", str(row.error))


def test_a_server_without_tls_is_a_connection_error(partition: Partition, server: Server) -> None:
    (row,) = partition.with_settings(retries=1).run(https(server.add("/a.jpg", JPEG)))
    assert (row.outcome, row.attempts) == (Outcome.CONNECTION_ERROR, 2)
    assert row.error in {
        f"the TLS connection failed: {reason}"
        for reason in ("wrong version number", "record layer failure", "packet length too long")
    }


def test_a_slow_body_over_tls_times_out(
    partition: Partition, server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    partition.with_settings(retries=0, total_timeout_s=1)
    (row,) = partition.run(https(server.add("/a.jpg", drip(JPEG))))
    assert row.outcome is Outcome.TIMEOUT
