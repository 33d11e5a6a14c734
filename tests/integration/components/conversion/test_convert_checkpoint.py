import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from components.conversion import convert_checkpoint, proof
from components.conversion.shard_writer import write_shards
from components.conversion.step import convert
from components.conversion.zero.checkpoint_reader import read_step, step_to_convert
from mantis.artifacts.manifest import Manifest, check_files
from mantis.errors import ConversionError
from mantis.runs.records import State, read_record
from mantis.runs.step_runner import Run
from tests.fixtures.conversion import MakeTrainedRun

TAG = "step-00000002"


def folder_of(run: Run, model: Manifest) -> Path:
    return Path(run.store.lance_uri(model.key))


def models(run: Run) -> list[str]:
    return [entry.key for entry in run.store.list("models")]


def test_a_converted_model_loads_with_transformers_alone_and_has_the_same_logits(trained_run: MakeTrainedRun) -> None:
    run, checkpoint = trained_run()
    model = convert(run, checkpoint)
    assert 0.0 <= float(model.summary["largest_logit_difference"]) < 1e-4
    assert check_files(run.store, model) == []
    folder = folder_of(run, model)
    loaded, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.dtype == torch.float32
    assert sum(weight.numel() for weight in loaded.parameters()) == model.summary["parameters"]
    assert AutoProcessor.from_pretrained(folder).tokenizer.convert_tokens_to_ids("<image>") is not None
    assert loaded.generation_config.eos_token_id == loaded.config.text_config.eos_token_id
    card = (folder / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert checkpoint.fingerprint in card


def test_a_result_that_is_there_is_reused(trained_run: MakeTrainedRun) -> None:
    run, checkpoint = trained_run()
    first = convert(run, checkpoint)
    assert convert(run, checkpoint) == first
    record = read_record(run.store, run.id, "convert")
    assert record is not None
    assert record.state is State.REUSED


def test_bf16_is_each_weight_rounded(trained_run: MakeTrainedRun) -> None:
    run, checkpoint = trained_run("bf16")
    model = convert(run, checkpoint)
    assert float(model.summary["largest_logit_difference"]) > 0.0
    folder = folder_of(run, model)
    assert AutoModelForImageTextToText.from_pretrained(folder).dtype == torch.bfloat16
    exact = read_step(run.store, checkpoint, step_to_convert(checkpoint, "last")).tensors
    name = "lm_head.weight"
    whole = torch.cat([piece.read() for piece in exact[name].pieces]).view(exact[name].shape)
    assert torch.equal(load_file(folder / "model.safetensors")[name], whole.bfloat16())


def test_one_changed_bit_of_one_written_tensor_stops_the_step(
    trained_run: MakeTrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, checkpoint = trained_run()
    write = write_shards

    def write_and_flip(shards: list[Any], folder: Path) -> dict[str, str]:
        digests = write(shards, folder)
        place = next(place for place in shards[0].places if place.tensor.name.endswith("layers.1.mlp.up_proj.weight"))
        with (folder / shards[0].name).open("r+b") as file:
            file.seek(place.start + 17)
            byte = file.read(1)[0]
            file.seek(place.start + 17)
            file.write(bytes([byte ^ 4]))
        return digests

    monkeypatch.setattr(convert_checkpoint, "write_shards", write_and_flip)
    with pytest.raises(ConversionError, match=r"layers\.1\.mlp\.up_proj\.weight was written with other bytes"):
        convert(run, checkpoint)
    assert models(run) == []


def test_one_changed_weight_of_the_checkpoint_shows_in_the_logits(trained_run: MakeTrainedRun) -> None:
    def damage(folder: Path) -> None:
        path = folder / TAG / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
        saved = torch.load(path, weights_only=False)
        with torch.no_grad():
            saved["optimizer_state_dict"]["fp32_flat_groups"][0][-1] += 0.01  # of lm_head
        torch.save(saved, path)
        recommit(folder)

    run, checkpoint = trained_run(damage=damage)
    with pytest.raises(ConversionError, match="logits differ by up to"):
        convert(run, checkpoint)
    assert models(run) == []


def recommit(folder: Path) -> None:
    commit = json.loads((folder / TAG / "COMMIT").read_text())
    for file in commit["files"]:
        file["size"] = (folder / TAG / file["name"]).stat().st_size
    (folder / TAG / "COMMIT").write_text(json.dumps(commit))


def cut(folder: Path) -> None:
    path = folder / TAG / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    path.write_bytes(path.read_bytes()[:-5])


def lose(folder: Path) -> None:
    (folder / TAG / "zero_pp_rank_1_mp_rank_00_model_states.pt").unlink()


def rename_step(folder: Path) -> None:
    commit = json.loads((folder / TAG / "COMMIT").read_text())
    (folder / TAG / "COMMIT").write_text(json.dumps(commit | {"step": 9}))


def uncommit(folder: Path) -> None:
    (folder / TAG / "COMMIT").unlink()


def forget_config(folder: Path) -> None:
    (folder / "model" / "config.json").unlink()


def nan_logits(folder: Path) -> None:
    probe = load_file(folder / "probe.safetensors")
    probe["logits"][0, 0] = float("nan")
    save_file(probe, folder / "probe.safetensors")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, r"rank_1_mp_rank_00_optim_states.pt has \d+ bytes, but COMMIT lists"),
        (lose, "rank_1_mp_rank_00_model_states.pt is missing"),
        (rename_step, "has step 9, but the shards have 2"),
        (uncommit, "holds no committed step"),
        (forget_config, "holds no model/config.json"),
        (nan_logits, "logits differ by up to nan"),
    ],
)
def test_damage_is_named_and_nothing_is_committed(
    trained_run: MakeTrainedRun, damage: Callable[[Path], None], says: str
) -> None:
    run, checkpoint = trained_run(damage=damage)
    with pytest.raises(ConversionError, match=says):
        convert(run, checkpoint)
    assert models(run) == []
    record = read_record(run.store, run.id, "convert")
    assert record is not None
    assert record.state is State.FAILED


def test_a_later_step_that_was_not_committed_is_not_converted(trained_run: MakeTrainedRun) -> None:
    def damage(folder: Path) -> None:
        shutil.copytree(folder / TAG, folder / "step-00000005")
        (folder / "step-00000005" / "COMMIT").unlink()

    run, checkpoint = trained_run(damage=damage)
    assert convert(run, checkpoint).summary["step"] == 2


def test_tied_weights_are_left_out(trained_run: MakeTrainedRun, tmp_path: Path) -> None:
    run, checkpoint = trained_run()
    zero = read_step(run.store, checkpoint, step_to_convert(checkpoint, "last"))
    config = json.loads(run.store.get("checkpoints/trained/model/config.json"))
    config["tie_word_embeddings"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConversionError, match=r"lm_head.weight and .* were trained apart"):
        convert_checkpoint.tensors_to_write(zero, tmp_path)
    head = zero.tensors.pop("lm_head.weight").name
    zero.aliases[head] = "model.language_model.embed_tokens.weight"
    assert head not in {tensor.name for tensor in convert_checkpoint.tensors_to_write(zero, tmp_path)}
    config["tie_word_embeddings"] = False
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert head in {tensor.name for tensor in convert_checkpoint.tensors_to_write(zero, tmp_path)}


def test_a_model_trained_in_bf16_is_compared_in_bf16(trained_run: MakeTrainedRun) -> None:
    run, checkpoint = trained_run()
    model = convert(run, checkpoint)
    probe = run.store.get("checkpoints/trained/probe.safetensors")
    difference = proof.prove_logits(
        folder_of(run, model), probe, family_name="llava-clip", trained="bf16", stored="fp32"
    )
    assert difference > 0.0


def test_every_pair_of_precisions_has_a_tolerance() -> None:
    assert set(proof.TOLERANCES) == {(trained, stored) for trained in proof.DTYPES for stored in proof.DTYPES}
