"""Redis servers of every kind: with passwords, behind TLS, behind Sentinel, in a cluster."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ports import free_port
from waiting import PATIENCE, wait_until

from tidemill.online.embedded import find_server


@dataclass(kw_only=True)
class Server:
    """One Redis process on a port of its own, its data in a folder of its own."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> Server:
        self.folder.mkdir(exist_ok=True)
        base = ["--port", str(self.port), "--dir", str(self.folder), "--appendonly", "yes", "--save", ""]
        self.process = _launch([find_server(), *base, *self.options, *more], self.folder)
        wait_until(lambda: self._lives() and self.answers())
        return self

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=PATIENCE)

    def _lives(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return True

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass(kw_only=True)
class Watched:
    """A master with replicas, and a Sentinel that watches them."""

    servers: list[Server]
    sentinel_port: int

    @property
    def address(self) -> str:
        return f"redis+sentinel://127.0.0.1:1,127.0.0.1:{self.sentinel_port}/tide"

    def master(self) -> Server:
        with redis.Redis(port=self.sentinel_port, decode_responses=True) as sentinel:
            _, port = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "tide")
        return next(server for server in self.servers if server.port == int(port))

    def replicas_known(self) -> int:
        with redis.Redis(port=self.sentinel_port, decode_responses=True) as sentinel:
            return len(sentinel.sentinel_slaves("tide"))

    def clients_of_sentinel(self) -> int:
        with redis.Redis(port=self.sentinel_port) as sentinel:
            return sentinel.info("clients")["connected_clients"]


@contextmanager
def watched(folder: Path, *, replicas: int) -> Iterator[Watched]:
    """A master, replicas that are in step with it, and a real `redis-server --sentinel`."""
    servers = [Server(folder=folder / f"redis-{number}") for number in range(1 + replicas)]
    sentinel_port = free_port()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        servers[0].start("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
        for replica in servers[1:]:
            replica.start("--replicaof", "127.0.0.1", str(servers[0].port))
        with servers[0].client() as master:
            wait_until(lambda: master.wait(replicas, 100) == replicas)
        conf = folder / "sentinel.conf"
        conf.write_text(
            f"port {sentinel_port}\nsentinel monitor tide 127.0.0.1 {servers[0].port} 1\n"
            "sentinel down-after-milliseconds tide 2000\nsentinel failover-timeout tide 2000\n"
        )
        processes.append(_launch([find_server(), str(conf), "--sentinel", "--dir", str(folder)], folder))
        found = Watched(servers=servers, sentinel_port=sentinel_port)
        wait_until(lambda: _quietly(found.replicas_known) == replicas)
        yield found
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for server in servers:
            server.kill()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        yield server.start()
    finally:
        server.kill()


@contextmanager
def tls_door(server: Server, folder: Path) -> Iterator[tuple[int, Path]]:
    """A port on which the server is reached over TLS only, and the certificate to trust."""
    certificate, key = _certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve() -> None:
        with suppress(OSError):  # the listener was closed: it is over
            while True:
                raw = listener.accept()[0]
                threads.append(threading.Thread(target=_pass_on, args=(raw, context, server.port), daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=serve, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1], certificate
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        server.kill()  # ends what is still passed on
        for thread in threads:
            thread.join()


def _pass_on(raw: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with suppress(OSError), raw:
        inner = context.wrap_socket(raw, server_side=True)
        with inner, socket.create_connection(("127.0.0.1", port)) as outer:
            back = threading.Thread(target=_copy, args=(outer, inner), daemon=True)
            back.start()
            _copy(inner, outer)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def _launch(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("a") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _quietly(ask):
    try:
        return ask()
    except redis.RedisError:
        return None
