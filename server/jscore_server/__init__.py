"""jscore-server: a NATS JetStream server. daemon.py runs it, server.py wires it, cli.py is the command."""
