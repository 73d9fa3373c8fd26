"""An NBD server of our own, which misbehaves as a test wants: what no real server would do.

The NBD protocol, fixed newstyle: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

import socket
import struct
import threading
import time
from collections import Counter

MAGIC = b"NBDMAGICIHAVEOPT"
OPTION_REPLY = 0x0003E889045565A9
REQUEST, SIMPLE_REPLY, STRUCTURED_REPLY = 0x25609513, 0x67446698, 0x668E33EF
OPT_ABORT, OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY = 2, 6, 7, 8
REPLY_DONE, REPLY_OFFSET_DATA = 1, 1
ACK, INFO = 1, 3
ERR_UNSUPPORTED, ERR_TLS_REQUIRED, ERR_UNKNOWN = 0x80000001, 0x80000005, 0x80000006
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3
READ, WRITE, DISCONNECT, FLUSH, TRIM, ZERO = 0, 1, 2, 3, 4, 6
HAS_FLAGS, READ_ONLY, CAN_FLUSH, CAN_FUA, CAN_TRIM, CAN_ZERO, MULTI_CONN = 1, 2, 4, 8, 32, 64, 256
EIO, EINVAL, ENOSPC, ESHUTDOWN = 5, 22, 28, 108


class Closed(Exception):
    """The client went, or is to be left."""


class NbdServer:
    """Serves `data` (a bytearray) on a unix socket until close().

    size: what it says, if not the truth. flags: the transmission flags. blocks: (min, preferred,
    max). greeting: bytes sent in place of the greeting. export_error: the reply to NBD_OPT_GO.
    errors: errno by command. on_request(server, connection, command, offset, length) is called
    before each request is served; it may sleep, raise Closed, or return bytes that are sent in
    place of the reply. clients: accept no more than so many, ever. answered: replies are structured,
    and have no more than so many bytes of what is read, as if that were all.
    """

    def __init__(self, path, data, size=None, flags=CAN_FLUSH | CAN_ZERO, blocks=None,
                 greeting=None, export_error=None, errors=None, on_request=None, clients=None,
                 answered=None):
        self.path, self.data, self.flags = path, data, HAS_FLAGS | flags
        self.size = len(data) if size is None else size
        self.blocks, self.greeting, self.export_error = blocks, greeting, export_error
        self.errors, self.on_request, self.clients = errors or {}, on_request, clients
        self.answered = answered
        self.requests, self.ranges = Counter(), []
        self.connections, self.left_politely = 0, 0
        self.under_way, self.most_under_way = 0, 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.open_sockets = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self):
        return f"nbd+unix:///?socket={self.path}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.closing.set()
        self.listener.close()
        for connection in self.open_sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def hang(self):
        """For on_request: answers nothing until the server is closed."""
        self.closing.wait()
        raise Closed

    def _accept(self):
        while self.clients is None or self.connections < self.clients:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open_sockets.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        self.listener.close()

    def _serve(self, connection):
        try:
            if self.greeting is not None:
                connection.sendall(self.greeting)
                time.sleep(0.05)
                return
            self._negotiate(connection)
            self._transmit(connection)
        except (Closed, OSError):
            pass
        finally:
            connection.close()

    @staticmethod
    def _take(connection, length):
        taken = bytearray()
        while len(taken) < length:
            piece = connection.recv(length - len(taken))
            if not piece:
                raise Closed
            taken += piece
        return bytes(taken)

    def _negotiate(self, connection):
        connection.sendall(MAGIC + struct.pack(">H", 3))
        self._take(connection, 4)
        while True:
            _, option, length = struct.unpack(">8sII", self._take(connection, 16))
            self._take(connection, length)

            def reply(kind, body=b"", option=option):
                connection.sendall(struct.pack(">QIII", OPTION_REPLY, option, kind, len(body))
                                   + body)

            if option == OPT_ABORT:
                reply(ACK)
                raise Closed
            if option == OPT_STRUCTURED_REPLY and self.answered is not None:
                reply(ACK)
                continue
            if option != OPT_GO:
                reply(ERR_UNSUPPORTED)
                continue
            if self.export_error is not None:
                reply(self.export_error)
                continue
            if self.blocks is not None:
                reply(INFO, struct.pack(">HIII", INFO_BLOCK_SIZE, *self.blocks))
            reply(INFO, struct.pack(">HQH", INFO_EXPORT, self.size, self.flags))
            reply(ACK)
            return

    def _transmit(self, connection):
        sending = threading.Lock()
        while True:
            magic, flags, command, cookie, offset, length = struct.unpack(
                ">IHHQQI", self._take(connection, 28))
            assert magic == REQUEST
            body = self._take(connection, length) if command == WRITE else b""
            if command == DISCONNECT:
                self.left_politely += 1
                raise Closed
            threading.Thread(target=self._answer, daemon=True, args=(
                connection, sending, flags, command, cookie, offset, length, body)).start()

    def _answer(self, connection, sending, flags, command, cookie, offset, length, body):
        with self.lock:
            self.requests[command] += 1
            self.ranges.append((command, offset, length, flags))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            instead = self.on_request and self.on_request(self, connection, command, offset, length)
            if instead is None:
                error, out = self._execute(command, offset, length, body)
                if command == READ and not error and self.answered is not None:
                    out = struct.pack(">Q", offset) + out[:self.answered]
                    instead = struct.pack(">IHHQI", STRUCTURED_REPLY, REPLY_DONE,
                                          REPLY_OFFSET_DATA, cookie, len(out)) + out
                else:
                    instead = struct.pack(">IIQ", SIMPLE_REPLY, error, cookie) + out
            with sending:
                connection.sendall(instead)
        except (Closed, OSError):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        finally:
            with self.lock:
                self.under_way -= 1

    def _execute(self, command, offset, length, body):
        if command in self.errors:
            return self.errors[command], b""
        if command in (READ, WRITE, ZERO) and offset + length > len(self.data):
            return EINVAL, b""
        with self.lock:
            if command == READ:
                return 0, bytes(self.data[offset:offset + length])
            if command == WRITE:
                self.data[offset:offset + length] = body
            elif command == ZERO:
                self.data[offset:offset + length] = bytes(length)
        return 0, b""
