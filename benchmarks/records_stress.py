"""Many processes write to one record store and are killed at random. Ends in one JSON line.

    python benchmarks/records_stress.py [--processes 8] [--records 1000] [--kills 40] [--seed 0]

Each record is written as a command does it: store opened, record added, store closed, and its id then
acknowledged to the parent. Held is: every acknowledged record is in the store and whole, no writer met an
error ("database is locked" least of all), and database and full-text index are sound. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infer_cli.records.record import Record
from infer_cli.records.store import Store

_WORDS = ["light", "sun", "sky", "blue", "scatter", "answer", "because", "tree", "river", "cloud", "night"]
_PAUSE_S = 0.02  # between two looks at the writers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--records", type=int, default=1000, help="acknowledged records of each process")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of when and whom to kill")
    parser.add_argument("--writer", nargs=3, metavar=("STORE", "ACKS", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.writer:
        store, acks, n = arguments.writer
        _write_records(Path(store), Path(acks), int(n))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        result = _stress(
            Path(directory), arguments.processes, arguments.records, arguments.kills, arguments.seed
        )
    print(json.dumps(result))
    return 0 if result["ok"] else 1


def _write_records(path: Path, acks: Path, n_records: int) -> None:
    # Appended with one call each: what is in this file survives the writer's end.
    acknowledge = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(n_records):
        with Store.open(path, _complain) as store:
            os.write(acknowledge, store.add(_record(secrets.token_hex(8))).encode() + b"\n")


def _complain(message: str) -> None:
    print(message, file=sys.stderr)


def _record(record_id: str) -> Record:
    """All but the id and the time follows from the id, so that a reader can tell a whole record."""
    rng = random.Random(record_id)
    return Record(
        record_id,
        "run",
        time.time(),
        model="smollm2-135m-instruct",
        prompt=" ".join(rng.choices(_WORDS, k=200)),
        prompt_ids=tuple(rng.choices(range(49152), k=250)),
        text=" ".join(rng.choices(_WORDS, k=100)),
        tokens=tuple(rng.choices(range(49152), k=120)),
        params={"temperature": 0.8, "top_k": 40},
        digest=f"sha256:{record_id}",
    )


class _Writer:
    """A writing process that is started again, for what is left of its records, whenever it is killed."""

    def __init__(self, directory: Path, name: str, n_records: int) -> None:
        self._store, self._acks = directory / "records.sqlite", directory / f"{name}.acks"
        self.errors = directory / f"{name}.errors"
        self._n_records = n_records
        self._acks.touch()
        self._start()

    def _start(self) -> None:
        n_left = self._n_records - len(self.acknowledged())
        command = [sys.executable, __file__, "--writer", str(self._store), str(self._acks), str(n_left)]
        with self.errors.open("ab") as errors:
            self._process = subprocess.Popen(command, stderr=errors)

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._start()

    def acknowledged(self) -> list[str]:
        return self._acks.read_text().split()


def _stress(directory: Path, n_processes: int, n_records: int, n_kills: int, seed: int) -> dict[str, object]:
    rng = random.Random(seed)
    began = time.perf_counter()
    writers = [_Writer(directory, f"writer-{i}", n_records) for i in range(n_processes)]
    n_killed = 0
    while running := [writer for writer in writers if writer.running()]:
        n_acknowledged = sum(len(writer.acknowledged()) for writer in writers)
        # Kills are spread over the work, so that they meet writers at work and not at their start.
        if n_killed < n_kills and n_acknowledged > n_processes * n_records * n_killed / n_kills:
            time.sleep(rng.random() * _PAUSE_S)
            rng.choice(running).kill()
            n_killed += 1
        else:
            time.sleep(_PAUSE_S)
    seconds = time.perf_counter() - began

    with Store.open(directory / "records.sqlite", _complain) as store:
        stored = {record.id: record for record in store.export()}
    acknowledged = [record_id for writer in writers for record_id in writer.acknowledged()]
    errors = [line for writer in writers for line in writer.errors.read_text().splitlines()]
    lost = [record_id for record_id in acknowledged if record_id not in stored]
    broken = [
        r.id for r in stored.values() if (r.text, r.tokens) != (_record(r.id).text, _record(r.id).tokens)
    ]
    soundness = _soundness(directory / "records.sqlite")
    return {
        "processes": n_processes,
        "records_each": n_records,
        "killed": n_killed,
        "acknowledged": len(acknowledged),
        "stored": len(stored),
        "lost": len(lost),
        "broken": len(broken),
        "errors": errors[-5:],
        "locked": sum("locked" in line for line in errors),
        "soundness": soundness,
        "seconds": round(seconds, 2),
        "records_per_s": round(len(acknowledged) / seconds, 1),
        "bytes": (directory / "records.sqlite").stat().st_size,
        "ok": len(acknowledged) == n_processes * n_records
        and not (lost or broken or errors)
        and soundness == "ok",
    }


def _soundness(path: Path) -> str:
    """`ok`, or what is wrong with the database or its full-text index."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    except sqlite3.DatabaseError as e:
        return str(e)
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
