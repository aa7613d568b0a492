"""The log has each step once, in valid JSON, and never shows an inactive loss as zero."""

import io
import json
import math
import os

import jax
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from dgnet_jax.errors import DivergedError, InputError
from dgnet_jax.training.run_log import RunLog, check_finite


def rows(workdir) -> list[dict]:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def tensorboard_events(folder) -> list[event_pb2.Event]:
    """Reads TensorBoard's record format: length (8 bytes), checksum (4), event, checksum (4)."""
    events = []
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return events


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rows_carry_kind_stage_step_and_numbers(tmp_path):
    with RunLog(tmp_path, 100, stream=io.StringIO()) as log:
        log.train(1, {"l1": float(np.float32(0.5))}, {"teacher": "until step 30001"}, 64.0, 0.01)
        log.evaluation(1, {"rank1": 0.44, "mAP": 0.2})
        log.evaluation(1, {"accuracy": 0.25}, stage="teacher")
    assert rows(tmp_path) == [
        {
            "kind": "train",
            "stage": "dgnet",
            "step": 1,
            "images_per_second": 64.0,
            "data_share": 0.01,
            "l1": 0.5,
        },
        {"kind": "evaluation", "stage": "dgnet", "step": 1, "rank1": 0.44, "mAP": 0.2},
        {"kind": "evaluation", "stage": "teacher", "step": 1, "accuracy": 0.25},
    ]


def test_an_evaluation_of_drawn_people_says_what_was_transferred(tmp_path):
    stream = io.StringIO()
    with RunLog(tmp_path, 100, stream=stream) as log:
        log.evaluation(40, {"mAP": 0.5, "appearance_transfer": 0.25, "structure_kept": 0.75})
        log.evaluation(50, {"appearance_transfer": 0.3, "structure_kept": 0.7})  # not ranked
    text = stream.getvalue()
    assert (
        "step 40 evaluated: mAP 50.00 %, appearance transfer 0.250, structure kept 0.750\n" in text
    )
    assert "step 50 evaluated: appearance transfer 0.300, structure kept 0.700\n" in text
    assert rows(tmp_path)[0]["structure_kept"] == 0.75


def test_an_inactive_loss_has_no_number_even_if_one_is_passed(tmp_path):
    stream = io.StringIO()
    with RunLog(tmp_path, 100, stream=stream) as log:
        log.train(
            1,
            {"l1": 0.5, "teacher": 0.0},
            {"teacher": "until step 30001", "cycle": "until step 30001", "id": "in this config"},
        )
    assert not {"teacher", "cycle"} & rows(tmp_path)[0].keys()
    line = stream.getvalue()
    assert (
        "l1 0.5 | teacher, cycle: inactive until step 30001 | id: inactive in this config" in line
    )


def test_numbers_that_are_not_finite_are_null_and_named(tmp_path):
    with RunLog(tmp_path, 100, stream=io.StringIO()) as log:
        log.train(1, {"l1": math.nan, "gan": -math.inf, "kl": 1.0})
    (row,) = rows(tmp_path)
    assert (row["l1"], row["gan"], row["kl"]) == (None, None, 1.0)
    assert row["non_finite"] == "l1=nan, gan=-inf"


def test_resuming_removes_the_lost_steps_of_this_stage_and_a_half_written_line(tmp_path):
    with RunLog(tmp_path, 50, stage="teacher", stream=io.StringIO()) as log:
        log.train(50, {"id": 1.0})
    with RunLog(tmp_path, 100, stream=io.StringIO()) as log:
        for step in (10, 20, 30):
            log.train(step, {"l1": step})
            log.evaluation(step, {"mAP": 0.1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "stage": "dgn')
    with RunLog(tmp_path, 100, resume_step=20, stream=io.StringIO()) as log:
        assert [log.evaluated(step) for step in (10, 20, 30)] == [True, True, False]
        log.train(30, {"l1": 31})
    assert [(row["stage"], row["kind"], row["step"]) for row in rows(tmp_path)] == [
        ("teacher", "train", 50),
        ("dgnet", "train", 10),
        ("dgnet", "evaluation", 10),
        ("dgnet", "train", 20),
        ("dgnet", "evaluation", 20),
        ("dgnet", "train", 30),
    ]
    assert rows(tmp_path)[-1]["l1"] == 31
    assert {entry.name for entry in tmp_path.iterdir()} == {"metrics.jsonl", "tensorboard"}


@pytest.mark.parametrize(
    "line",
    [
        "null",
        '{"stage": "dgnet", "step": 1}',
        '{"kind": "evaluation", "stage": "dgnet", "step": [1]}',
        '{"kind": "evaluation", "stage": "dgnet", "step": 1e400}',
        '{"kind": "evaluation", "stage": "dgnet", "step": 1, "mAP": {}}',
    ],
)
def test_resuming_removes_lines_of_another_shape(tmp_path, line):
    good = '{"kind": "evaluation", "stage": "dgnet", "step": 2, "mAP": 0.5}'
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n{good}\n")
    with RunLog(tmp_path, 10, resume_step=5, stream=io.StringIO()) as log:
        assert log.evaluated(2) and not log.evaluated(1)
    assert (tmp_path / "metrics.jsonl").read_text() == f"{good}\n"


def test_a_fifo_in_the_place_of_the_log_is_refused(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be read \(a FIFO"):
        RunLog(tmp_path, 10)


def test_a_fresh_start_forgets_the_stage(tmp_path):
    for _ in range(2):
        with RunLog(tmp_path, 100, stream=io.StringIO()) as log:
            log.evaluation(0, {"mAP": 0.1})
    assert len(rows(tmp_path)) == 1


def test_rows_are_in_the_file_as_soon_as_they_are_logged(tmp_path):
    with RunLog(tmp_path, 100, stream=io.StringIO()) as log:
        log.train(1, {"l1": 0.5})
        assert rows(tmp_path)[0]["step"] == 1


def test_tensorboard_gets_scalars_images_and_the_step_to_purge_from(tmp_path):
    with RunLog(tmp_path, 100, resume_step=20, stream=io.StringIO()) as log:
        log.train(21, {"l1": 0.5})
        log.image(21, "swaps", np.zeros((8, 4, 3), np.uint8))
    events = tensorboard_events(tmp_path / "tensorboard" / "dgnet")
    assert [e.step for e in events if e.HasField("session_log")] == [21]
    values = {v.tag: (e.step, v) for e in events for v in e.summary.value}
    assert values["train/l1"][0] == 21
    assert values["train/l1"][1].simple_value == 0.5
    assert (values["swaps"][1].image.height, values["swaps"][1].image.width) == (8, 4)


def test_without_a_terminal_plain_lines_come_every_so_often_and_at_the_end(tmp_path):
    stream = io.StringIO()
    with RunLog(tmp_path, 500, stream=stream, shown=["l1"]) as log:
        for step in range(1, 501):
            log.train(step, {"l1": 0.25, "gan": 1.0}, images_per_second=61.25, data_share=0.02)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "dgnet 1/500 | ETA ? | 61.2 images/s | data 2 % | l1 0.25"
    assert lines[1] == "dgnet 500/500 | ETA 00:00 | 61.2 images/s | data 2 % | l1 0.25"
    assert len(lines) == 2
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_a_progress_bar_that_starts_at_the_resumed_step(tmp_path):
    stream = Terminal()
    with RunLog(tmp_path, 500, resume_step=100, stream=stream) as log:
        log.train(101, {"l1": 0.25}, {"teacher": "until step 300"}, 60.0)
        log.evaluation(101, {"rank1": 0.4, "mAP": 0.2056})
        log.train(500, {"l1": 0.125}, {}, 60.0)
    text = stream.getvalue()
    assert "101/500" in text
    assert "teacher: inactive until step 300" in text
    assert "dgnet step 101 evaluated: rank1 40.00 %, mAP 20.56 %\n" in text
    assert "500/500" in text


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with RunLog(tmp_path, 100) as log:
        log.train(1, {"l1": 0.5})
        log.evaluation(1, {"mAP": 0.5})
        log.image(1, "swaps", np.zeros((8, 4, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops_with_step_loss_and_checkpoint():
    check_finite(3, {"l1": 0.5}, lambda: pytest.fail("asked for without need"))
    with pytest.raises(
        DivergedError, match=r"step 7: gan nan: .* checkpoint is of step 5"
    ) as caught:
        check_finite(7, {"l1": 0.5, "gan": math.nan}, lambda: 5)
    assert (caught.value.step, caught.value.loss_name, caught.value.checkpoint) == (7, "gan", 5)
    with pytest.raises(DivergedError, match="There is no checkpoint yet"):
        check_finite(7, {"l1": math.inf}, lambda: None)
