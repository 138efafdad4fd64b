"""The memory arithmetic, against what llama.cpp itself logs, and the readers of system memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infer_cli.errors import OutOfMemory, UsageError
from infer_cli.models import footprint
from infer_cli.models.gguf.reading import read_header
from infer_cli.models.gguf.shape import ModelShape
from infer_cli.system import memory
from tests.tiny_gguf import gguf_bytes, metadata, vocabulary, write_tiny_gguf

GIB = 2**30

# (n_ctx_seq, n_seqs, type_k, type_v, n_ubatch, n_outputs, flash_attention)
Config = tuple[int, int, str, str, int, int, bool]
CONFIGS: list[Config] = [
    (512, 1, "F16", "F16", 512, 8, True),
    (512, 4, "F16", "F16", 64, 64, True),
    (1000, 3, "F16", "BF16", 64, 8, True),
    (2048, 2, "Q8_0", "Q8_0", 512, 512, True),
    (768, 2, "F32", "Q8_0", 128, 8, True),
    (2048, 1, "F16", "F16", 512, 8, False),
]

LOAD = """
import ctypes, json, sys
from llama_cpp import llama_cpp as L
ids = {"F32": 0, "F16": 1, "Q8_0": 8, "BF16": 30}
lines = []
callback = L.llama_log_callback(lambda level, text, data: lines.append(text.decode()))
L.llama_log_set(callback, ctypes.c_void_p(0))
L.llama_backend_init()
model = L.llama_model_load_from_file(sys.argv[1].encode(), L.llama_model_default_params())
found = []
for n_ctx_seq, n_seqs, type_k, type_v, n_ubatch, n_outputs, flash in json.loads(sys.argv[2]):
    lines.clear()
    params = L.llama_context_default_params()
    params.n_ctx, params.n_seq_max = n_ctx_seq * n_seqs, n_seqs
    params.type_k, params.type_v = ids[type_k], ids[type_v]
    params.n_batch = params.n_ubatch = n_ubatch
    params.n_outputs_max, params.flash_attn_type = n_outputs, int(flash)
    context = L.llama_init_from_model(model, params)
    found.append("".join(lines))
    L.llama_free(context)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    return ModelShape(read_header(write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")))


@pytest.fixture(scope="module")
def logs(tiny: ModelShape) -> list[str]:
    """llama.cpp's log of making a context, for each of CONFIGS."""
    command = [sys.executable, "-c", LOAD, str(tiny.header.path), json.dumps(CONFIGS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found: list[str] = json.loads(done.stdout)
    return found


def logged_mib(log: str, what: str) -> str:
    found = re.findall(rf"{what} buffer size =\s+([\d.]+) MiB", log)
    assert len(found) == 1, log
    return str(found[0])


@pytest.mark.parametrize("i", range(len(CONFIGS)))
def test_the_cache_is_as_large_as_llama_cpp_says(tiny: ModelShape, logs: list[str], i: int) -> None:
    n_ctx_seq, n_seqs, type_k, type_v, *_ = CONFIGS[i]
    n_bytes = footprint.kv_bytes(tiny, n_ctx_seq, n_seqs, type_k, type_v)
    assert f"{n_bytes / 2**20:.2f}" == logged_mib(logs[i], "KV")


@pytest.mark.parametrize("i", range(len(CONFIGS)))
def test_the_compute_estimate_is_above_and_near(tiny: ModelShape, logs: list[str], i: int) -> None:
    n_ctx_seq, _, _, _, n_ubatch, n_outputs, flash = CONFIGS[i]
    ours = footprint.compute_bytes(tiny, n_ctx_seq, n_ubatch, n_outputs, flash)
    theirs = float(logged_mib(logs[i], "compute")) * 2**20
    assert theirs <= ours <= 3 * theirs


def test_weights_are_the_file_less_its_header(tiny: ModelShape) -> None:
    assert footprint.weights_bytes(tiny.header) == tiny.header.file_size - tiny.header.data_offset


def build(tmp_path: Path, overrides: dict[str, Any]) -> ModelShape:
    return ModelShape(read_header(write_tiny_gguf(tmp_path / "m.gguf", overrides=overrides)))


def test_layers_without_attention_keep_no_cache(tmp_path: Path, tiny: ModelShape) -> None:
    half = build(tmp_path, {"llama.attention.head_count_kv": [2, 0]})
    assert footprint.kv_bytes(half, 512, 1) * 2 == footprint.kv_bytes(tiny, 512, 1)


def test_shared_and_predicting_layers_keep_no_cache(tmp_path: Path, tiny: ModelShape) -> None:
    for key in ("llama.attention.shared_kv_layers", "llama.nextn_predict_layers"):
        assert footprint.kv_bytes(build(tmp_path, {key: 1}), 512, 1) * 2 == footprint.kv_bytes(tiny, 512, 1)


def test_latent_attention_keeps_keys_only(tmp_path: Path, tiny: ModelShape) -> None:
    latent = build(tmp_path, {"llama.attention.key_length_mla": 32, "llama.attention.value_length_mla": 32})
    assert footprint.kv_bytes(latent, 512, 1) * 2 == footprint.kv_bytes(tiny, 512, 1)


def test_sliding_layers_may_have_their_own_head_length(tmp_path: Path, tiny: ModelShape) -> None:
    swa = {"llama.attention.key_length_swa": 16, "llama.attention.value_length_swa": 16}
    one = build(tmp_path, {**swa, "llama.attention.sliding_window_pattern": [True, False]})
    assert footprint.kv_bytes(one, 512, 1) * 4 == footprint.kv_bytes(tiny, 512, 1) * 3
    assert footprint.kv_bytes(build(tmp_path, swa), 512, 1) == footprint.kv_bytes(tiny, 512, 1)


def other(tmp_path: Path, arch: str, **hyperparameters: Any) -> ModelShape:
    entries = {"general.architecture": arch, f"{arch}.block_count": 2, f"{arch}.embedding_length": 64}
    path = tmp_path / f"{arch}.gguf"
    path.write_bytes(gguf_bytes({**entries, **{f"{arch}.{k}": v for k, v in hyperparameters.items()}}, []))
    return ModelShape(read_header(path))


def test_states_of_recurrent_layers(tmp_path: Path) -> None:
    # llama_hparams::n_embd_r + n_embd_s, F32, per layer and sequence; the window does not matter.
    ssm = {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.group_count": 1}
    mamba = 4 * (3 * (128 + 2 * 16) + 16 * 128)
    assert footprint.kv_bytes(other(tmp_path, "mamba2", **ssm), 512, 3) == 2 * 3 * mamba
    assert footprint.kv_bytes(other(tmp_path, "mamba2", **ssm), 4096, 3) == 2 * 3 * mamba
    rwkv = 4 * (2 * 64 + 64 * 32)
    assert footprint.kv_bytes(other(tmp_path, "rwkv6", **{"wkv.head_size": 32}), 512, 1) == 2 * rwkv
    lfm = {"shortconv.l_cache": 3, "attention.head_count": 2, "attention.head_count_kv": [0, 1]}
    assert footprint.kv_bytes(other(tmp_path, "lfm2", **lfm), 512, 1) == 4 * 64 * 2 + 2 * 2 * 32 * 512


def test_kv_types_are_named_as_users_write_them(tiny: ModelShape) -> None:
    assert footprint.kv_bytes(tiny, 512, 1, "q8_0", "q8_0") == footprint.kv_bytes(tiny, 512, 1) * 34 // 64
    with pytest.raises(UsageError, match="'q9' is no tensor type"):
        footprint.kv_bytes(tiny, 512, 1, "q9")


def test_layers_on_a_device(tiny: ModelShape) -> None:
    def fit(free: int, compute: int = 0) -> int:
        return footprint.plan_gpu_layers(tiny, free, 512, 1, compute=compute)

    output = sum(t.n_bytes for t in tiny.header.tensors if not t.name.startswith("blk."))
    last = sum(t.n_bytes for t in tiny.header.tensors if t.name.startswith("blk.1."))
    cache = footprint.kv_bytes(tiny, 512, 1) // 2
    margin = footprint.GPU_MARGIN
    everything = footprint.weights_bytes(tiny.header) + 2 * cache + margin
    assert fit(0) == 0
    assert fit(margin + output - 1) == 0
    assert fit(margin + output) == 1
    assert fit(margin + output + last + cache - 1) == 1
    assert fit(margin + output + last + cache) == 2
    assert fit(everything - 1) == 2
    assert fit(everything) == 3
    assert fit(everything, compute=1) == 2
    assert fit(100 * GIB) == 3


def test_the_input_embedding_stays_in_host_memory(tmp_path: Path) -> None:
    n_vocab = len(vocabulary()[0])
    tensors = [
        ("token_embd.weight", (128, n_vocab), 0, bytes(512 * n_vocab)),
        ("output.weight", (128, n_vocab), 1, bytes(256 * n_vocab)),
    ]
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(metadata(512, None), tensors))
    shape = ModelShape(read_header(path))
    free = footprint.GPU_MARGIN + 256 * n_vocab
    assert footprint.plan_gpu_layers(shape, free, 512, 1) == 1
    assert footprint.plan_gpu_layers(shape, free - 1, 512, 1) == 0


# --- what the system has --------------------------------------------------------------------------


def system(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    everything = {
        "proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable:    4194304 kB\n",
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{name}": content for name, content in files.items()},
    }
    for name, content in everything.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_no_cgroup_limit(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/user\n", {"user/memory.max": "max\n", "user/memory.current": "1\n"})
    assert memory._linux_available(root) == 4 * GIB


def test_cgroup_v2_counts_file_pages_as_free_and_obeys_parents(tmp_path: Path) -> None:
    files = {
        "a/b/memory.max": f"{3 * GIB}\n",
        "a/b/memory.current": f"{2 * GIB}\n",
        "a/b/memory.stat": f"anon 5\ninactive_file {GIB // 2}\nactive_file {GIB // 4}\n",
    }
    assert memory._linux_available(system(tmp_path, "0::/a/b\n", files)) == GIB + GIB // 2 + GIB // 4
    files |= {"a/memory.max": f"{2 * GIB}\n", "a/memory.current": f"{2 * GIB - 77}\n"}
    assert memory._linux_available(system(tmp_path, "0::/a/b\n", files)) == 77


def test_cgroup_v1(tmp_path: Path) -> None:
    files = {
        "memory/box/memory.limit_in_bytes": f"{2 * GIB}\n",
        "memory/box/memory.usage_in_bytes": f"{GIB}\n",
        "memory/box/memory.stat": "inactive_file 7\ntotal_inactive_file 1000\ntotal_active_file 24\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": "1\n",
    }
    root = system(tmp_path, "5:cpu:/box\n4:memory:/box\n0::/\n", files)
    assert memory._linux_available(root) == GIB + 1024


def test_a_container_whose_path_is_the_hosts(tmp_path: Path) -> None:
    files = {"memory.max": f"{GIB}\n", "memory.current": "0\n"}
    assert memory._linux_available(system(tmp_path, "0::/docker/0123\n", files)) == GIB


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert memory._linux_available(tmp_path) is None


def test_vm_stat() -> None:
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               100.\n"
        "Pages active:                          900000.\n"
        "Pages inactive:                           200.\n"
        "Pages speculative:                         30.\n"
        "Pages wired down:                      100000.\n"
        "Pages purgeable:                            4.\n"
    )
    assert memory._vm_stat_available(text) == 334 * 16384
    assert memory._vm_stat_available("vm_stat: failed") is None


def test_this_machine_has_memory() -> None:
    available = memory.available_memory()
    if sys.platform == "win32":
        assert available is None
    else:
        assert available is not None and available > 0


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    footprint.check_fits(5, 5)
    footprint.check_fits(5, None)
    with pytest.raises(OutOfMemory, match=r"needs 12\.5 GB of memory, 8 GB is available") as caught:
        footprint.check_fits(12_500_000_000, 8_000_000_000)
    assert "--ctx" in caught.value.hint
