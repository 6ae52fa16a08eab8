"""A certificate authority of a test's own, made with the openssl command: certificates of any name, date and key."""
from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

from programs import KEY_OPTIONS

CONFIGURATION = """
[ca]
default_ca = here
[here]
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = optional
"""


def openssl(*arguments: object) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def day(days_from_now: float) -> str:
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days_from_now)
    return moment.strftime("%Y%m%d%H%M%SZ")


class Authority:
    def __init__(self, folder: Path, name: str = "An authority") -> None:
        folder.mkdir()
        self.folder, self.certificate, self.key = folder, folder / "ca.crt", folder / "ca.key"
        self.configuration = folder / "ca.cnf"
        self.configuration.write_text(CONFIGURATION.format(folder=folder))
        (folder / "index.txt").touch()
        (folder / "serial").write_text("1000")
        openssl("req", "-x509", "-nodes", *KEY_OPTIONS["ecdsa:P-256"], "-subj", f"/CN={name}", "-days", 30,
                "-keyout", self.key, "-out", self.certificate)

    def signed(self, command: str, *arguments: object) -> str:
        return openssl("ca", "-batch", "-notext", "-config", self.configuration, "-cert", self.certificate,
                       "-keyfile", self.key, command, *arguments)

    def issue(self, name: str, *hosts: str, key: str = "ecdsa:P-256", days: tuple[float, float] = (-1, 30)) -> Path:
        """A file with the key and the certificate of `name` for `hosts`, valid from and until so many days from now.
        The certificate alone is in the file of the same name that ends in .crt."""
        stem = f"{name or 'nameless'}-{key.replace(':', '-')}"
        private, request, certificate, both = (self.folder / f"{stem}.{end}" for end in ("key", "csr", "crt", "pem"))
        names = ["-addext", "subjectAltName=" + ",".join(f"DNS:{host}" for host in hosts)] if hosts else []
        openssl("req", "-new", "-nodes", "-subj", f"/CN={name}" if name else "/", *names, *KEY_OPTIONS[key],
                "-keyout", private, "-out", request)
        self.signed("-in", request, "-out", certificate, "-startdate", day(days[0]), "-enddate", day(days[1]))
        both.write_text(private.read_text() + certificate.read_text() + self.certificate.read_text())
        return both

    def revoke(self, certificate: Path) -> None:
        self.signed("-revoke", certificate.with_suffix(".crt"))

    def staple(self, *certificates: Path, days: int | None = 7) -> Path:
        """An OCSP response about all of these, which says what is known of them now."""
        response = self.folder / f"{'-'.join(certificate.stem for certificate in certificates)}.ocsp"
        asked = [word for certificate in certificates for word in ("-cert", certificate.with_suffix(".crt"))]
        openssl("ocsp", "-no_nonce", "-issuer", self.certificate, *asked, "-reqout", self.folder / "request")
        openssl("ocsp", "-index", self.folder / "index.txt", "-CA", self.certificate, "-rsigner", self.certificate,
                "-rkey", self.key, "-reqin", self.folder / "request", "-respout", response,
                *(["-ndays", days] if days else []))
        return response
