"""Files of others are data: whatever they name, nothing of it is ever run."""

from __future__ import annotations

import json
import os
import pickle
import runpy
import shutil
import sys
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from repository import NO_WIDTH, ROOT

from solo_ood.cli import main
from solo_ood.data.digits import digits_lt
from solo_ood.embedding.store import EmbeddingStore
from solo_ood.files.checkpoint import load
from solo_ood.host import installed
from solo_ood.selection.selector import STATE_KEY, STATE_VERSION

SCRIPTS = ROOT / "scripts"
REFUSED = r"Error: (checkpoint|weights) .*evil\S*: expected .*, got .*which may run code when it is"
_RUNS: list[Path] = []


class Call:
    """An object whose unpickling calls ``function(*args)``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


# Each leaves a marker: a folder, a file, a folder made by code in a text.
ATTACKS = {
    "os": lambda marker: Call(os.mkdir, str(marker)),
    "builtin": lambda marker: Call(open, str(marker), "w"),
    "eval": lambda marker: Call(eval, f"__import__('os').mkdir({str(marker)!r})"),
    "run": lambda marker: Call(runpy._run_code, f"import os; os.mkdir({str(marker)!r})", {}),
}


@pytest.fixture
def marker(tmp_path: Path) -> Any:
    """Where an attack would leave its trace; none has, when the test ends."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


@pytest.fixture
def run(tmp_path_factory, compose, build, loader, trainer) -> Path:
    """The folder of a short run: a checkpoint of the real host and its args.json."""
    if not _RUNS:
        folder = tmp_path_factory.mktemp("run")
        cfg = compose(NO_WIDTH, f"checkpoint.dir={folder}", "max_epochs=1", "data.val_path=null")
        cfg.limit_train_batches, cfg.enable_progress_bar = 8, False
        if installed.generation() == "release":
            from solo_ood.training.release_programs import pretrain

            folder = pretrain(cfg)
        else:
            fitter = trainer(max_epochs=1, limit_train_batches=8)
            fitter.fit(build(cfg), loader(cfg))
            fitter.save_checkpoint(folder / "run.ckpt")
            (folder / "args.json").write_text(json.dumps(OmegaConf.to_container(cfg)))
        _RUNS.append(folder)
    return _RUNS[0]


def checkpoint_of(run: Path) -> Path:
    (path,) = run.glob("*.ckpt")
    return path


@pytest.fixture
def evil(run: Path, tmp_path: Path, marker: Path) -> Path:
    """A copy of the run whose checkpoint makes the marker when it is unpickled."""
    folder = tmp_path / "evil"
    folder.mkdir()
    shutil.copy(run / "args.json", folder)
    content = torch.load(checkpoint_of(run), weights_only=True)
    content["hyper_parameters"] = {"lr": ATTACKS["builtin"](marker)}
    torch.save(content, folder / "evil.ckpt")
    return folder


def release_only() -> None:
    if installed.generation() != "release":
        pytest.skip("scripts/ is for solo-learn 1.0.2; a checkout has its own scripts")


# -- the reader ------------------------------------------------------------------------------------


def by_torch(content: Any, path: Path) -> None:
    torch.save(content, path)


def by_old_torch(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def by_torch_with_protocol_4(content: Any, path: Path) -> None:
    torch.save(content, path, pickle_protocol=4)


def by_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def by_old_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


FORMATS = [by_torch, by_old_torch, by_torch_with_protocol_4, by_pickle, by_old_pickle]


@pytest.mark.parametrize("attack", sorted(ATTACKS))
@pytest.mark.parametrize("save", FORMATS)
@pytest.mark.parametrize("mmap", [False, True])
def test_no_attack_in_any_format_runs_when_it_is_read(attack, save, mmap, marker, tmp_path):
    save({"state_dict": {"w": torch.ones(2)}, "x": [ATTACKS[attack](marker)]}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="evil.pt: expected tensors, .*, got .*") as error:
        load(tmp_path / "evil.pt", mmap=mmap)
    assert "\n" not in str(error.value)
    assert not marker.exists()
    if save in (by_torch, by_old_torch):  # then it also says what was in it
        named = {"os": r"posix\.mkdir|nt\.mkdir", "builtin": "open", "eval": "eval", "run": "runpy"}
        error.match(f"got .*({named[attack]})")


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_the_attacks_work_where_pickles_are_trusted(attack, tmp_path):
    """Otherwise the tests of this file would show nothing."""
    by_torch(ATTACKS[attack](tmp_path / "trace"), tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("place", ["root", "key", "value", "inside Namespace", "inside OmegaConf"])
def test_no_harmless_class_is_a_way_in(place, marker, tmp_path):
    attack = ATTACKS["os"](marker)
    inside = OmegaConf.create({"a": 1}, flags={"allow_objects": True})
    inside._metadata.object_type = attack
    content = {
        "root": attack,
        "key": {Call(str, attack): 1},
        "value": {"state_dict": {"w": attack}},
        "inside Namespace": {"args": Namespace(arch=attack)},
        "inside OmegaConf": {"hyper_parameters": inside},
    }[place]
    torch.save(content, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="got .*mkdir, which may run code"):
        load(tmp_path / "evil.pt")


def test_checkpoints_of_the_host_hold_nothing_but_tensors_and_plain_values(run):
    loaded = torch.load(checkpoint_of(run), weights_only=True)  # no class is allowed
    assert {"state_dict", "optimizer_states", "loops", STATE_KEY} <= loaded.keys()
    mapped = load(checkpoint_of(run), mmap=True)
    assert mapped.keys() == loaded.keys()
    for key, value in loaded["state_dict"].items():
        assert torch.equal(mapped["state_dict"][key], value)


def test_settings_that_lightning_saves_are_read(compose, tmp_path):
    """Of a method of the user's own that calls save_hyperparameters, and of official DINO."""
    content = {
        "state_dict": {"backbone.w": torch.ones(2)},
        # As Lightning puts it there; a config with cached interpolations cannot be read.
        "hyper_parameters": OmegaConf.create(OmegaConf.to_container(compose())),
        "hparams_name": "cfg",
        "args": Namespace(arch="vit_small", patch_size=16),
    }
    torch.save(content, tmp_path / "run.ckpt")
    loaded = load(tmp_path / "run.ckpt")
    assert loaded["hyper_parameters"].max_epochs == 2 and loaded["args"].patch_size == 16


HARMLESS = {
    "scalar": np.float64(0.25),
    "integer": np.int32(4),
    "truth": np.bool_(True),
    "text": np.str_("cosine"),
    "no text": np.str_(""),
    "date": np.datetime64("2024-05-01"),
    "array": np.arange(3),
    "texts": np.array(["a", "bc"]),
    "dtype": np.dtype("float32"),
    "generator": np.random.RandomState(0).get_state(),
    "path": Path("runs") / "a",
    "pure path": PurePosixPath("runs/a"),
    "windows": PureWindowsPath("runs/a"),
    "namespace": Namespace(out=Path("runs"), lr=np.float32(0.1)),
    "simple": SimpleNamespace(lr=0.1),
    "default": defaultdict(list, a=[1]),
    "deque": deque([1, 2], maxlen=3),
    "counter": Counter("aab"),
    "ordered": OrderedDict(a=1),
    "time": datetime(2024, 5, 1, tzinfo=timezone.utc),
    "span": timedelta(days=3),
    "set": {1, 2},
    "frozen": frozenset({1}),
    "complex": 1j,
    "decimal": Decimal("0.1"),
    "torch": (torch.Size([3]), torch.device("cpu"), torch.float16),
    "interpolations": OmegaConf.create({"a": 1, "b": "${a}", "c": [{"d": None}]}),
}
EQUAL = ("scalar", "integer", "truth", "text", "pure path", "windows", "default", "time", "set")


@pytest.mark.parametrize("save", [by_torch, by_old_torch])
def test_what_arguments_of_programs_are_made_of_is_read(save, tmp_path):
    """Together, and each in a file of its own where it comes out the same."""
    HARMLESS["interpolations"].b  # noqa: B018  what it refers to is then cached
    save({"state_dict": {"w": torch.ones(2)}, "args": HARMLESS}, tmp_path / "w.pt")
    loaded = load(tmp_path / "w.pt")
    assert torch.equal(loaded["state_dict"]["w"], torch.ones(2))
    assert loaded["args"].keys() == HARMLESS.keys()
    for name in EQUAL:
        assert loaded["args"][name] == HARMLESS[name], name
    assert loaded["args"]["namespace"].out == PurePosixPath("runs")
    assert loaded["args"]["interpolations"].b == 1


class Array:
    """An array or type of NumPy as an attack makes it: of objects, read from bytes."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


OBJECTS = Array(np.dtype, ("O8", False, True))
FIELDS = (3, "|", None, ("a",), {"a": (OBJECTS, 0)}, 8, 1, 0)
_RECONSTRUCT = np.arange(1).__reduce__()[0]
OF_NUMPY = {
    "objects": OBJECTS,
    "fields": Array(np.dtype, ("V8", False, True), FIELDS),
    "array": Array(_RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,), OBJECTS, False, b"\x01" * 8)),
    "scalar": Array(np.float64(1).__reduce__()[0], (OBJECTS, b"\x01" * 8)),
}


@pytest.mark.parametrize("name", OF_NUMPY)
def test_bytes_are_never_read_as_numpys_objects(name, tmp_path):
    torch.save({"args": {"lr": OF_NUMPY[name]}, "w": torch.ones(1)}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil.pt: .*got numpy.dtype, which may run code"):
        load(tmp_path / "evil.pt")


@pytest.mark.parametrize("place", ["factory", "path", "dtype", "deque"])
def test_no_stand_in_is_a_way_in(place, marker, tmp_path):
    attack = ATTACKS["builtin"](marker)
    content = {
        "factory": Call(defaultdict, attack),
        "path": Call(PurePosixPath, attack),
        "dtype": Call(np.dtype, attack),
        "deque": Call(deque, [attack]),
    }[place]
    torch.save({"args": content}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="got .*open, which may run code"):
        load(tmp_path / "evil.pt")


class Unknown:
    """Harmless, but who can know?"""


def test_another_class_is_named_with_what_to_do(tmp_path):
    torch.save({"a": Unknown(), "b": torch.ones(1)}, tmp_path / "w.pt")
    expected = (
        r"got \S*Unknown, which may .* If you made it yourself, open it with torch.load.*"
        r"c = torch.load\('.*w.pt', weights_only=False\); torch.save\(c\['state_dict'\], "
    )
    with pytest.raises(ValueError, match=expected):
        load(tmp_path / "w.pt")


@pytest.mark.parametrize("length", [0, 10, 2000, -200])
def test_a_checkpoint_that_is_cut_off_is_one_clear_line(length, run, tmp_path):
    content = checkpoint_of(run).read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[:length])
    expected = r"cut.ckpt: expected tensors, .*, got a damaged file, or one .* \(.*\)\."
    with pytest.raises(ValueError, match=expected) as error:
        load(tmp_path / "cut.ckpt")
    assert "\n" not in str(error.value)


# -- what reads a file -----------------------------------------------------------------------------


def test_export_runs_nothing(evil, tmp_path):
    with pytest.raises(SystemExit, match=REFUSED):
        main(["export", str(evil / "evil.ckpt"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_report_runs_nothing(evil):
    with pytest.raises(SystemExit, match=REFUSED):
        main(["report", str(evil)])
    assert not (evil / "report").exists()


MADE_UP = {"version": STATE_VERSION}


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (None, "expected the state of dino_ood, got none"),
        ([1], "expected the state of dino_ood, got none"),
        (
            MADE_UP | {"selector": {"settings": {"feature size": 8}}},
            "as dino_ood saves it, got KeyError: 'scorer'",
        ),
        (
            MADE_UP | {"selector": {"settings": {"feature size": "x"}, "scorer": {}}},
            "as dino_ood saves it, got TypeError",
        ),
        (MADE_UP | {"selector": {"scorer": 3}}, "as dino_ood saves it, got AttributeError"),
        ({"version": 1, "selector": {}}, "expected layout version 2, got 1"),
    ],
)
def test_a_report_of_a_made_up_detector_is_one_clear_line(state, match, run, tmp_path):
    content = torch.load(checkpoint_of(run), weights_only=True)
    content[STATE_KEY] = state
    shutil.copy(run / "args.json", tmp_path)
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(SystemExit, match=f"Error: checkpoint other.ckpt.*{match}"):
        main(["report", str(tmp_path)])


@pytest.mark.parametrize("content", ["", '{"method": ', "[1]", "\x80\x04"])
def test_settings_that_are_cut_off_are_one_clear_line(content, run, tmp_path):
    shutil.copy(checkpoint_of(run), tmp_path / "run.ckpt")
    (tmp_path / "args.json").write_text(content)
    for command in (["report", tmp_path], ["export", tmp_path / "run.ckpt", tmp_path / "out"]):
        with pytest.raises(SystemExit, match="args.json: expected the settings of a run, as JSON"):
            main([str(part) for part in command])


@pytest.mark.parametrize("name", ["evil.ckpt", "evil.pth", "evil.pt", "evil.bin"])
def test_weights_to_embed_with_run_nothing(name, evil, tmp_path):
    (evil / "evil.ckpt").rename(evil / name)
    spec = str(evil / name) if name == "evil.ckpt" else f"resnet18:{evil / name}"
    arguments = ["--embedder", spec, "--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    with pytest.raises(SystemExit, match=REFUSED):
        main(["measure", str(digits_lt("val")), "--cross-fit", *map(str, arguments)])


def test_weights_that_only_call_themselves_safe_run_nothing(evil, tmp_path):
    (evil / "evil.ckpt").rename(evil / "evil.safetensors")
    arguments = ["--embedder", f"resnet18:{evil / 'evil.safetensors'}", "--out", tmp_path / "out"]
    with pytest.raises(SystemExit, match="Error: weights evil.safetensors: expected a state dict"):
        main(["measure", str(digits_lt("val")), "--cross-fit", *map(str, arguments)])


@pytest.mark.parametrize("name", ["pooled", "status"])
def test_the_cache_of_embeddings_runs_nothing(name, marker, tmp_path):
    objects = np.array([ATTACKS["os"](marker), None, None], dtype=object)
    np.save(tmp_path / f"{name}.npy", objects, allow_pickle=True)
    with pytest.raises(ValueError, match=f"cache .*{name}.npy: expected an array .* Delete its"):
        EmbeddingStore(tmp_path, {"pooled": ((2,), "float32")}, 3)


def script(name: str, *arguments: object) -> None:
    """Run a script of ``scripts/`` in this process."""
    before = sys.argv
    sys.argv = [name, *map(str, arguments)]
    try:
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
    finally:
        sys.argv = before


QUIET = ("hydra/job_logging=disabled", "hydra/hydra_logging=disabled", "hydra.output_subdir=null")


def knn_data() -> tuple[str, ...]:
    """Return the arguments that name the data, which the run here has not."""
    return "--train_data_path", digits_lt("reference"), "--val_data_path", digits_lt("val")


def linear_data() -> tuple[str, ...]:
    train, val = digits_lt("reference"), digits_lt("val")
    return f"data.train_path={train}", f"data.val_path={val}", "data.tail_path=null"


def test_evaluation_scripts_run_nothing(evil, tmp_path, monkeypatch):
    release_only()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=REFUSED):
        script("main_knn.py", "--pretrained_checkpoint_dir", evil, *knn_data())
    checkpoint = f"pretrained_feature_extractor='{evil / 'evil.ckpt'}'"
    with pytest.raises(SystemExit, match=REFUSED):
        script(
            "main_linear.py", "--config-name", "dino_ood_linear", checkpoint, *linear_data(), *QUIET
        )


def test_weights_of_another_network_are_one_clear_line(run, tmp_path):
    release_only()
    from solo_ood.training.release_programs import load_network

    args = json.loads((run / "args.json").read_text())
    shutil.copy(checkpoint_of(run), tmp_path / "run.ckpt")
    for change, match in (
        (
            {"encoder": "resnet50"},
            "weights for resnet50 in run.ckpt: expected all 265 .* args.json of the same run",
        ),
        ({"method": "dino_odd"}, "Unknown method in args.json: .*Did you mean 'dino_ood'"),
    ):
        (tmp_path / "args.json").write_text(json.dumps({**args, **change}))
        with pytest.raises(ValueError, match=match):
            load_network(tmp_path / "run.ckpt")


CHANGES = {
    "half": lambda key, core: None if f"{core}layer4." in key else key,
    "one tensor": lambda key, core: (
        None if key.endswith(f"{core}layer3.1.bn2.running_var") else key
    ),
}


def changed(run: Path, folder: Path, change: Callable[[str, str], str | None]) -> Path:
    """Copy a run with other keys in its checkpoint."""
    core = {"release": "encoder.", "checkout": "backbone."}[installed.generation()]
    folder.mkdir()
    shutil.copy(run / "args.json", folder)
    content = torch.load(checkpoint_of(run), weights_only=True)
    keys = {key: change(key, core) for key in content["state_dict"]}
    content["state_dict"] = {new: content["state_dict"][key] for key, new in keys.items() if new}
    torch.save(content, folder / "run.ckpt")
    return folder / "run.ckpt"


@pytest.mark.parametrize("change", CHANGES)
def test_what_lacks_a_tensor_is_not_evaluated_or_written_on(change, run, tmp_path, monkeypatch):
    path = changed(run, tmp_path / "half", CHANGES[change])
    lacks = r"Error: weights for .*run.ckpt: expected all 100 tensors .*args.json of the same run"
    for weights in ("student", "teacher"):
        with pytest.raises(SystemExit, match=lacks):
            main(["export", str(path), str(tmp_path / "out"), "--weights", weights])
    assert not (tmp_path / "out").exists()
    if installed.generation() == "release":
        monkeypatch.chdir(tmp_path)
        for weights in ("student", "teacher"):
            knn = ("--pretrained_checkpoint_dir", path.parent, "--weights", weights)
            with pytest.raises(SystemExit, match=lacks):
                script("main_knn.py", *knn, *knn_data())
            spec = (f"pretrained_feature_extractor='{path}'", f"weights={weights}", *QUIET)
            with pytest.raises(SystemExit, match=lacks):
                script("main_linear.py", "--config-name", "dino_ood_linear", *spec, *linear_data())
        assert not [*path.parent.glob("*.json")][1:]  # args.json alone


@pytest.mark.parametrize("weights", ["student", "teacher"])
def test_names_of_the_other_generation_are_the_same_network(weights, run, tmp_path):
    release_only()
    from solo_ood.training.release_programs import load_network

    renamed = changed(run, tmp_path / "a", lambda key, core: key.replace(core, "backbone."))
    wanted = load_network(checkpoint_of(run), weights)[0].state_dict()
    stored = torch.load(checkpoint_of(run), weights_only=True)["state_dict"]
    prefix = "momentum_encoder." if weights == "teacher" else "encoder."
    for key, value in load_network(renamed, weights)[0].state_dict().items():
        assert torch.equal(value, wanted[key]) and torch.equal(value, stored[prefix + key])


def test_a_teacher_that_lost_its_student_is_not_exported(run, tmp_path):
    """The result would hold the teacher under the names that are left of the student."""
    path = changed(
        run, tmp_path / "half", lambda key, core: None if key.startswith(f"{core}layer4") else key
    )
    with pytest.raises(SystemExit, match="the student resnet18 in run.ckpt: .*missing layer4"):
        main(["export", str(path), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_resuming_runs_nothing(evil, tiny, tmp_path, monkeypatch):
    release_only()
    monkeypatch.chdir(tmp_path)
    resumed = f"+resume_from_checkpoint='{evil / 'evil.ckpt'}'"
    common = ("--config-name", "dino_ood", *tiny, "data.val_path=null", *QUIET)
    with pytest.raises(SystemExit, match=REFUSED):
        script("main_pretrain.py", *common, resumed)
    with pytest.raises(SystemExit, match="checkpoint: expected a .ckpt file .* got no file http"):
        script("main_pretrain.py", *common, "+resume_from_checkpoint=http://localhost/a.ckpt")


def test_resuming_from_what_auto_resume_finds_runs_nothing(evil, compose):
    release_only()
    from solo_ood.training.release_programs import pretrain

    cfg = compose(f"checkpoint.dir={evil.parent}", "data.val_path=null")
    cfg.auto_resume.enabled = True
    folder = evil.parent / "dino_ood" / "0"
    folder.parent.mkdir()
    evil.rename(folder)
    args = json.loads((folder / "args.json").read_text())
    args["config"] = OmegaConf.to_container(cfg, resolve=True)
    (folder / "args.json").write_text(json.dumps(args))
    with pytest.raises(ValueError, match=REFUSED.removeprefix("Error: ")):
        pretrain(cfg)


def test_lightning_resumes_without_running_anything(evil, compose, build, loader, trainer):
    """What a checkout's scripts do: ``fit(ckpt_path=...)``, with every version of Lightning."""
    fitter, cfg = trainer(max_epochs=2), compose()
    with pytest.raises(ValueError, match=REFUSED.removeprefix("Error: ")):
        fitter.fit(build(cfg), loader(cfg), ckpt_path=evil / "evil.ckpt")
    assert fitter.global_step == 0
