"""A client as Python programs are written: urllib, and UDP sockets, connected and not. Standard library alone.

It prints one line for each answer, and fails at the first that is wrong. Arguments: ADDRESS PORT pairs.
"""

import socket
import sys
import urllib.request

PATIENCE = 3


def by_http(address, port):
    host = f"[{address}]" if ":" in address else address
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=PATIENCE) as response:
        return response.read().decode().strip()


def udp(address):
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(PATIENCE)
    return made


def by_connected(address, port):
    with udp(address) as client:
        client.connect((address, port))
        peer = client.getpeername()[:2]
        assert peer == (address, port), f"dialled {address}, connected to {peer}"
        client.send(b"who")
        return client.recv(2048).decode()


def by_unconnected(address, port):
    with udp(address) as client:
        client.sendto(b"who", (address, port))
        answer, source = client.recvfrom(2048)
        assert source[:2] == (address, port), f"dialled {address}, answered by {source}"
        return answer.decode()


targets = sys.argv[1:]
for address, port in zip(targets[::2], targets[1::2]):
    for ask in (by_http, by_connected, by_unconnected):
        print(ask(address, int(port)))
