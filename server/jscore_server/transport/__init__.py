"""What lies between a socket and the protocol, as far as Python decides it: TLS settings and when TLS begins."""
