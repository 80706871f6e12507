"""Redis servers for tests: Debian's, if it is there, or a fake one that knows the commands that the store sends."""

import contextlib
import shutil
import socket
import socketserver
import subprocess
import threading
import time


class _Connection(socketserver.StreamRequestHandler):
    def handle(self):
        fake = self.server.fake
        while line := self.rfile.readline():
            command = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                command.append(self.rfile.read(size + 2)[:-2])
            with fake.lock:
                fake.commands.append(command[0].decode())
                answer = fake.answer(command)
            if answer is None:  # the connection breaks after the command was done
                return
            self.wfile.write(answer)


class Fake:
    """Speaks GET, SET NX, SELECT, AUTH, XADD and XRANGE, as far as the store uses them.

    Attributes:
        commands: the names of the commands that came.
        breaks: the next command of this name is done, and its answer is lost.
        password: what AUTH must bring; "" for no password.
    """

    def __init__(self, password=""):
        self.lock, self.commands, self.breaks, self.password = threading.Lock(), [], "", password
        self.texts, self.streams = {}, {}
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Connection, bind_and_activate=True)
        self._server.daemon_threads, self._server.fake = True, self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, command):
        name, *rest = command
        found = getattr(self, name.decode().lower(), lambda *_: b"-ERR unknown command\r\n")(*rest)
        if self.breaks == name.decode():
            self.breaks = ""
            return None
        return found

    def auth(self, password):
        return b"+OK\r\n" if password.decode() == self.password else b"-WRONGPASS invalid password\r\n"

    def select(self, number):
        return b"+OK\r\n"

    def get(self, key):
        return bulk(self.texts.get(key))

    def set(self, key, value, option):
        assert option == b"NX"
        if key in self.texts:
            return bulk(None)
        self.texts[key] = value
        return b"+OK\r\n"

    def xadd(self, key, place, *fields):
        assert place == b"*" and len(fields) == 2
        entries = self.streams.setdefault(key, [])
        entries.append((len(entries) + 1, fields))
        return bulk(b"%d-0" % len(entries))

    def xrange(self, key, low, high, word, count):
        assert low[:1] == b"(" and high == b"+" and word == b"COUNT"
        after = int(low[1:].split(b"-")[0])
        found = [e for e in self.streams.get(key, []) if e[0] > after][:int(count)]
        return array([array([bulk(b"%d-0" % place), array(map(bulk, fields))]) for place, fields in found])


def bulk(value):
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(parts):
    parts = list(parts)
    return b"*%d\r\n" % len(parts) + b"".join(parts)


PROGRAM = shutil.which("redis-server")


@contextlib.contextmanager
def started(directory):
    """Debian's server on a free port; yields the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", "",
                                "--appendonly", "no"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()
