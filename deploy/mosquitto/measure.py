#!/usr/bin/env python3
"""Measures what Mosquitto's settings cost and lose while its subscriber is away.

For each setting: messages a second at QoS 1 (100,000 messages, or as many as it takes in 45 s), and the
acknowledged messages that are gone after `kill -9` of the broker at 500 messages a second. Prints a table.
Needs mosquitto and Python 3. Takes about 7 minutes: python3 deploy/mosquitto/measure.py
"""

import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

PERSISTENT = "persistence true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
# Name, settings, seconds from the start of the broker to kill -9.
CASES = [
    ("stock", "persistence false\n", 20),
    ("persistence true", PERSISTENT, 20),
    ("autosave_interval 30", PERSISTENT + "autosave_interval 30\n", 47),
    ("autosave_interval 5", PERSISTENT + "autosave_interval 5\n", 20),
    ("autosave_interval 1", PERSISTENT + "autosave_interval 1\n", 20),
    ("1000, on changes", PERSISTENT + "autosave_on_changes true\nautosave_interval 1000\n", 20),
    ("5, on changes", PERSISTENT + "autosave_on_changes true\nautosave_interval 5\n", 20),
    ("1, on changes", PERSISTENT + "autosave_on_changes true\nautosave_interval 1\n", 20),
]
PADDING = b"x" * 240
IN_FLIGHT_MAX = 1000


class Broker:
    """A Mosquitto of its own, with a persistent session that waits for `t/#`."""

    def __init__(self, folder, settings):
        self.folder, self.settings = folder, settings
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()
        with self.connect("gateway", clean=False) as session:
            session.sendall(packet(0x82, struct.pack(">H", 1) + text("t/#") + b"\x01"))
            session.recv(5)

    def start(self):
        path = f"{self.folder}/mosquitto.conf"
        with open(path, "w") as file:
            file.write(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
            file.write(f"persistence_location {self.folder}/\n{self.settings}")
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(["mosquitto", "-c", path], stdout=quiet, stderr=quiet)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def connect(self, client_id, clean):
        for _ in range(200):
            try:
                session = socket.create_connection(("127.0.0.1", self.port))
                break
            except OSError:
                time.sleep(0.05)
        flags = bytes([4, 2 if clean else 0]) + struct.pack(">H", 600)
        session.sendall(packet(0x10, text("MQTT") + flags + text(client_id)))
        answer = session.recv(4)
        assert answer[0] == 0x20 and answer[3] == 0, answer
        return session

    def kept(self):
        """The numbers of the messages that the waiting session gets."""
        numbers, rest = set(), b""
        session = self.connect("gateway", clean=False)
        session.settimeout(3)
        try:
            while data := session.recv(262144):
                packets, rest = split(rest + data)
                acknowledgements = b""
                for first, body in packets:
                    if first >> 4 == 3:
                        at = 2 + struct.unpack(">H", body[:2])[0]
                        numbers.add(struct.unpack(">Q", body[at + 2 : at + 10])[0])
                        acknowledgements += b"\x40\x02" + body[at : at + 2]
                session.sendall(acknowledgements)
        except socket.timeout:
            pass
        session.close()
        return numbers


class Publisher:
    """A publisher at QoS 1 with at most IN_FLIGHT_MAX messages without a PUBACK."""

    def __init__(self, broker):
        self.session = broker.connect("publisher", clean=True)
        self.sent = self.acknowledged = 0
        threading.Thread(target=self.count, daemon=True).start()

    def count(self):
        odd = 0
        try:
            while data := self.session.recv(65536):
                odd += len(data)
                self.acknowledged += odd // 4
                odd %= 4
        except OSError:
            pass

    def publish(self, seconds, rate=None, messages=None):
        start = time.monotonic()
        while (now := time.monotonic() - start) < seconds and (messages is None or self.sent < messages):
            room = min(200, IN_FLIGHT_MAX - (self.sent - self.acknowledged))
            if rate is not None:
                room = min(room, int(rate * now) - self.sent)
            if messages is not None:
                room = min(room, messages - self.sent)
            if room <= 0:
                time.sleep(0.001)
                continue
            numbers = range(self.sent, self.sent + room)
            self.session.sendall(b"".join(publish_packet(number) for number in numbers))
            self.sent += room


def length(number):
    encoded = b""
    while True:
        number, digit = divmod(number, 128)
        encoded += bytes([digit | (128 if number else 0)])
        if not number:
            return encoded


def packet(first, body):
    return bytes([first]) + length(len(body)) + body


def text(value):
    return struct.pack(">H", len(value)) + value.encode()


def publish_packet(number):
    packet_id = struct.pack(">H", number % 65535 + 1)
    return packet(0x32, text("t/a") + packet_id + struct.pack(">Q", number) + PADDING)


def split(data):
    """The whole packets of `data`, and the rest."""
    packets, start = [], 0
    while True:
        size = shift = 0
        at = start + 1
        while True:
            if at >= len(data):
                return packets, data[start:]
            size |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if not data[at - 1] & 128:
                break
        if len(data) - at < size:
            return packets, data[start:]
        packets.append((data[start], data[at : at + size]))
        start = at + size


def new_folder():
    folder = tempfile.mkdtemp()
    # Mosquitto, started by root, runs as another user.
    os.chmod(folder, 0o777)
    return folder


def speed(settings):
    folder = new_folder()
    broker = Broker(folder, settings)
    publisher = Publisher(broker)
    start = time.monotonic()
    publisher.publish(45, messages=100_000)
    while publisher.acknowledged < publisher.sent and time.monotonic() - start < 45:
        time.sleep(0.001)
    rate = publisher.acknowledged / (time.monotonic() - start)
    broker.kill()
    shutil.rmtree(folder)
    return rate


def loss(settings, seconds):
    folder = new_folder()
    broker = Broker(folder, settings)
    publisher = Publisher(broker)
    publisher.publish(seconds, rate=500)
    broker.kill()
    time.sleep(0.3)
    acknowledged = publisher.acknowledged
    broker.start()
    kept = broker.kept()
    broker.kill()
    shutil.rmtree(folder)
    return acknowledged, len([number for number in kept if number < acknowledged])


def main():
    print("| settings | messages a second | acknowledged | lost at kill -9 |\n|---|---|---|---|")
    for name, settings, seconds in CASES:
        acknowledged, kept = loss(settings, seconds)
        print(f"| {name} | {speed(settings):,.0f} | {acknowledged:,} | {acknowledged - kept:,} |", flush=True)


if __name__ == "__main__":
    main()
