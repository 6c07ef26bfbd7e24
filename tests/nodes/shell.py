#!/usr/bin/env python3
"""A remote shell between the nodes of nodes.sh, in place of ssh: Open MPI's plm_rsh_agent.

    shell.py serve                     on each node: runs commands that arrive over the network
    shell.py [OPTION...] HOST COMMAND  runs a command on another node, with its output and exit code
"""
import socket
import subprocess
import sys
import threading

PORT = 2222


def answer(connection):
    with connection, connection.makefile("rb") as request:
        command = request.readline().decode().rstrip("\n").replace("\0", "\n")
        process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            while part := process.stdout.read1(65536):
                connection.sendall(b"o%d\n" % len(part) + part)
            connection.sendall(b"e%d\n" % process.wait())
        except OSError:
            # The other end is gone; the command goes on, as it does with ssh.
            while process.stdout.read1(65536):
                pass
            process.wait()


def serve():
    with socket.create_server(("", PORT)) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=answer, args=[connection], daemon=True).start()


def run(host, command):
    with socket.create_connection((host, PORT)) as connection, connection.makefile("rb") as replies:
        connection.sendall(command.replace("\n", "\0").encode() + b"\n")
        while header := replies.readline():
            kind, number = header[:1], int(header[1:])
            if kind == b"e":
                return number if number >= 0 else 128 - number
            sys.stdout.buffer.write(replies.read(number))
            sys.stdout.buffer.flush()
    return 255


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments == ["serve"]:
        serve()
    while arguments and arguments[0].startswith("-"):
        arguments.pop(0)
    sys.exit(run(arguments[0], " ".join(arguments[1:])))
