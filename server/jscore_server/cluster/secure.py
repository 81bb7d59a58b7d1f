"""TLS between servers: both sides show a certificate, before anything else is said."""

from __future__ import annotations

from ipaddress import ip_address

from jscore_server.config.options import Cluster
from jscore_server.config.transport import Tls as TlsOptions
from jscore_server.dataplane import Plane
from jscore_server.protocol.certificate import BadCertificate, read_certificate
from jscore_server.protocol.mapping import known_host, plain_names
from jscore_server.transport.context import context

__all__ = ["ClusterTls"]

NANOSECOND = 1_000_000_000


class ClusterTls:
    """The settings of the cluster's `tls` block, for routes and for replication links."""

    def __init__(self, options: TlsOptions, hosts: list[str]) -> None:
        """`hosts`: those the configuration names. Raises: ValueError when a file cannot be used."""
        self.server = context(options, server=True)
        self.client = context(options, server=False)
        self.timeout_ns = int(options.timeout * NANOSECOND)
        self.options = options
        self.hosts = hosts
        # A server learned by gossip is known by its address; its certificate may only have a name.
        self.name = next((host for host in hosts if not _is_address(host)), "")

    @classmethod
    def of(cls, cluster: Cluster) -> ClusterTls | None:
        """Those of a configuration; None: there is no TLS. Raises: ValueError."""
        return cls(cluster.tls, [url.host for url in cluster.routes]) if cluster.tls is not None else None

    def accepted(self, plane: Plane, conn: int) -> None:
        """Before anything is written to a connection that was accepted."""
        plane.layer(conn, self.server, timeout_ns=self.timeout_ns, first=True)

    @property
    def judges(self) -> bool:
        """Whether the certificate of who dials says more than that some authority vouches for it."""
        return self.options.check_known_urls or self.options.verify_and_map

    def knows(self, plane: Plane, conn: int, user: str) -> bool:
        """Whether the certificate is for a host of the configured routes, or for the user that routes must be."""
        ders = plane.peer_certificates(conn)
        try:
            found = read_certificate(ders[0]) if ders else None
        except BadCertificate:
            found = None
        if found is None:
            return False
        if self.options.check_known_urls and known_host(found.dns, self.hosts):
            return True
        names = (*found.emails, *found.dns, *found.uris, *plain_names(found))
        return self.options.verify_and_map and bool(user) and user in names

    def dialled(self, plane: Plane, conn: int, host: str) -> None:
        """Before anything is written to a connection that we made."""
        name = self.name if self.name and _is_address(host) else host
        plane.layer(conn, self.client, timeout_ns=self.timeout_ns, first=True, dials=True, host=name)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
