"""The full evaluation of a checkpoint: every number against NumPy loops over its embeddings."""

import json
import re
import shutil
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from PIL import Image
from test_ranking import hits_by_sorting
from test_reranking import distances_by_definition
from tiny import tiny_config, tiny_state
from trained import BEST, save_evaluated

from configs import trained
from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation import evaluator
from dgnet_jax.evaluation.tables import evaluation_table
from dgnet_jax.inference import load_model
from dgnet_jax.models import build_networks
from dgnet_jax.runtime import workdir
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.dataset import open_data
from dgnet_jax.runtime.workdir import DGNET_STAGE, stage_directory
from dgnet_jax.training.state import make_optimizers

STEP = 7
TRAINED_WITH, OTHER = 5, 9


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """A data set with multi-query images, of all cameras but the first."""
    root = draw(tmp_path_factory.mktemp("people") / "data", TRAINED_WITH, seed=0)
    (root / "gt_bbox").mkdir()
    for path in sorted((root / "bounding_box_test").glob("*_c[2-4]s*.jpg")):
        if not path.name.startswith(("-1", "0000")):
            shutil.copy(path, root / "gt_bbox")
    return root


@pytest.fixture(scope="module")
def strangers(tmp_path_factory) -> Path:
    """A data set of other people, without multi-query images."""
    return draw(tmp_path_factory.mktemp("strangers") / "data", OTHER, seed=1)


def draw(root: Path, train_identities: int, seed: int) -> Path:
    draw_dataset(
        root,
        seed=seed,
        train_identities=train_identities,
        test_identities=4,
        images_per_identity_camera=3,
        distractors=3,
        junk=2,
        height=32,
        width=16,
    )
    return root


@pytest.fixture(scope="module")
def run(people, tmp_path_factory) -> Path:
    """The work directory of a run with one checkpoint."""
    config = tiny_config({"data.root": str(people), "evaluation.rerank_k1": 5})
    folder = workdir.prepare(tmp_path_factory.mktemp("run"), config)
    workdir.unlock(folder)
    state = tiny_state(build_networks(config, TRAINED_WITH), make_optimizers(config), STEP)
    with Checkpoints(stage_directory(folder, DGNET_STAGE), config) as checkpoints:
        checkpoints.save(STEP, state)
    return folder


@pytest.fixture(scope="module")
def config(run) -> ml_collections.ConfigDict:
    config = trained.get_config(str(run))
    config.evaluation.generated_images = False
    return config


@pytest.fixture(scope="module")
def found(run, config) -> dict:
    """The results on the run's own data set."""
    return evaluator.evaluate_fully(config, run, config_name="a name")


@pytest.fixture(scope="module")
def embedded(run, config) -> dict:
    """(prime, fine) embeddings, identities and cameras of each split."""
    data, model = open_data(config), load_model(config, run)
    splits = {"query": data.query, "gallery": data.gallery, "more": data.multi_query}
    return {
        name: (model.embeddings(split.images).astype(np.float64), split.identities, split.cameras)
        for name, split in splits.items()
    }


def test_a_mistyped_teacher_is_refused_before_the_images_are_read(run, config, monkeypatch):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.evaluation.generated_images = True
        other.teacher.checkpoint = "runs/mistypd"
    monkeypatch.setattr(evaluator, "embed_split", lambda *arguments: pytest.fail("began"))
    with pytest.raises(InputError, match=r"--config\.teacher\.checkpoint: .*mistypd"):
        evaluator.evaluate_fully(other, run)


def scores_of(weights: tuple[float, float], embeddings: np.ndarray) -> np.ndarray:
    """Features of prime . prime and fine . fine with weights, another way than the package's."""
    return np.concatenate([np.sqrt(w) * embeddings[:, i] for i, w in enumerate(weights)], axis=1)


def figures(hits) -> dict[str, float]:
    """Metrics of the protocol's definition, in loops."""
    hits = list(hits)
    trapezoid, standard, hardest = [], [], []
    for ranks in hits:
        points = [((i / r if r else 1), (i + 1) / (r + 1)) for i, r in enumerate(ranks)]
        trapezoid.append(np.mean([(a + b) / 2 for a, b in points]) if points else 0)
        if points:
            standard.append(np.mean([b for _, b in points]))
            hardest.append(len(ranks) / (ranks[-1] + 1))
    shares = {
        f"rank{k}": np.mean([bool(ranks) and ranks[0] < k for ranks in hits])
        for k in (1, 5, 10, 20)
    }
    return shares | {
        "mAP": np.mean(trapezoid),
        "mAP_standard": np.mean(standard),
        "mINP": np.mean(hardest),
    }


def row(found: dict, name: str) -> dict[str, float]:
    (chosen,) = (row for row in found["ranking"] if row["name"] == name)
    return chosen["metrics"]


@pytest.mark.parametrize(
    ("name", "weights"),
    [("alpha 0.5", (1, 0.5)), ("alpha 0", (1, 0)), ("fine only", (0, 1))],
)
def test_each_row_is_the_protocol_s_numbers(found, embedded, name, weights):
    query, gallery = embedded["query"], embedded["gallery"]
    hits = hits_by_sorting(
        scores_of(weights, query[0]), *query[1:], scores_of(weights, gallery[0]), *gallery[1:]
    )
    metrics = row(found, name)
    for key, value in figures(hits).items():
        assert metrics[key] == pytest.approx(value, abs=1e-12), key


def test_the_multi_query_row_averages_the_same_camera_s_images(found, embedded):
    query, gallery, more = (embedded[name] for name in ("query", "gallery", "more"))
    features, others = scores_of((1, 0.5), query[0]), scores_of((1, 0.5), more[0])
    without = 0
    for i, (identity, camera) in enumerate(zip(*query[1:], strict=True)):
        same = (more[1] == identity) & (more[2] == camera)
        without += not same.any()
        if same.any():
            features[i] = others[same].mean(axis=0)
    hits = hits_by_sorting(features, *query[1:], scores_of((1, 0.5), gallery[0]), *gallery[1:])
    metrics = row(found, "alpha 0.5, multi-query")
    for key, value in figures(hits).items():
        assert metrics[key] == pytest.approx(value, abs=1e-12), key
    assert metrics["multi_query_images"] == len(more[1])
    # The first camera's images were left out of gt_bbox.
    assert metrics["queries_without_multi_query"] == without == 4


def test_the_re_ranked_row_is_the_paper_s_definition(found, embedded):
    query, gallery = embedded["query"], embedded["gallery"]
    kept = gallery[1] != -1
    features = scores_of((1, 0.5), query[0]), scores_of((1, 0.5), gallery[0])[kept]
    distances = distances_by_definition(*features, k1=5, k2=6, lambda_value=0.3)
    # Columns of -distances as one-hot features: the sorting oracle ranks by them.
    hits = hits_by_sorting(
        -distances, *query[1:], np.eye(kept.sum()), *(x[kept] for x in gallery[1:])
    )
    metrics = row(found, "alpha 0.5, re-ranked (k1 5, k2 6, lambda 0.3)")
    for key, value in figures(hits).items():
        assert metrics[key] == pytest.approx(value, abs=1e-12), key


def test_the_counts_are_those_of_the_drawn_data(found):
    # 4 people x 4 cameras, one query and two gallery images each; c1 is not in gt_bbox.
    assert found["counts"] == {
        "queries": 16,
        "queries_without_match": 0,
        "gallery": 32 + 3,
        "distractors": 3,
        "junk": 2,
        "multi_query_images": 24,
        "queries_without_multi_query": 4,
    }


def test_the_file_holds_the_results_and_what_is_needed_to_repeat_it(run, found):
    written = json.loads((run / "evaluation.json").read_text())
    assert written == json.loads(json.dumps(found))
    assert (written["step"], written["identities"]) == (STEP, TRAINED_WITH)
    assert (written["trained_on"], written["evaluated_on"]) == ("market1501", "market1501")
    assert written["config"] == "a name"
    assert written["configuration"]["evaluation"]["rerank_k1"] == 5
    reranked = next(row for row in written["ranking"] if row["reranking"])
    assert reranked["reranking"] == {"k1": 5, "k2": 6, "lambda": 0.3}
    assert {"jax", "numpy", "python", "dgnet_jax"} <= written["versions"].keys()
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]
    assert set(written["pictures"]) == {"ranked_lists", "worst_queries", "cmc"}
    for path in written["pictures"].values():
        assert Path(path).parent == run / "evaluation"
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 300


def test_evaluate_gives_the_main_row(run, config, found):
    metrics = evaluator.evaluate(config, run)
    assert metrics == {
        key: value for key, value in found["ranking"][0]["metrics"].items() if key in metrics
    }
    assert found["ranking"][0]["name"] == "alpha 0.5"
    expected = "rank1 rank5 rank10 mAP mAP_standard mINP queries gallery junk distractors"
    assert set(expected.split()) <= metrics.keys()


def test_the_best_checkpoint_is_evaluated(run, config, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    networks, optimizers = build_networks(config, TRAINED_WITH), make_optimizers(config)
    states = tuple(tiny_state(networks, optimizers, BEST, seed) for seed in (2, 3))
    shutil.rmtree(stage_directory(folder, DGNET_STAGE))
    save_evaluated(folder, config, states)
    assert evaluator.evaluate_fully(config, folder, "best")["step"] == BEST
    best = evaluator.evaluate(config, folder, step="best")
    assert best == evaluator.evaluate(config, folder, step=BEST)
    assert best != evaluator.evaluate(config, folder)


def test_the_table_shows_every_row_in_percent_and_the_counts(found):
    table = evaluation_table(found)
    for entry in found["ranking"]:
        (line,) = (line for line in table.splitlines() if line.startswith(f"| {entry['name']} "))
        assert f" {100 * entry['metrics']['mAP']:.2f} " in line
        assert f" {100 * entry['metrics']['rank20']:.2f} " in line
    assert "Rank@20" in table
    assert "35 gallery images, 3 of them distractors, 2 junk images left out" in table
    assert "24 images for multi-query, 4 queries without any of them" in table
    assert f"Trained on market1501 (5 identities, step {STEP}, l1), evaluated on market" in table


def test_a_network_is_evaluated_on_people_it_was_not_trained_with(
    run, config, strangers, found, monkeypatch
):
    own = (run / "evaluation.json").read_bytes()
    other = config.copy_and_resolve_references()
    other.data.name, other.data.root = "folder", str(strangers)
    other.evaluation.rerank = False
    other.evaluation.generated_images = True
    images = {"fid_png": 12.5, "generated": 60, "note": "as PNG"}
    seen = []

    def measure_images(config, model, data):
        seen.append((config.data.name, model.step, data.num_identities))
        return images

    monkeypatch.setattr(evaluator, "measure_images", measure_images)
    result = evaluator.evaluate_fully(other, run)
    assert seen == [("folder", STEP, OTHER)]
    assert (result["trained_on"], result["evaluated_on"]) == (
        "market1501",
        f"folder {strangers.name}",
    )
    assert result["identities"] == TRAINED_WITH
    assert open_data(other).num_identities == OTHER
    assert [row["name"] for row in result["ranking"]] == ["alpha 0.5", "alpha 0", "fine only"]
    table = evaluation_table(result)
    assert "Trained on market1501" in table
    assert f"evaluated on folder {strangers.name}" in table
    assert "No multi-query" in table
    assert re.search(r"\| generated, PNG \(ours\) +\| +12.5 \|", table)
    assert "\n60 generated." in table
    assert table.endswith("\nas PNG")
    # The run's own results stay.
    assert (run / "evaluation.json").read_bytes() == own
    written = json.loads((run / f"evaluation_on_folder_{strangers.name}.json").read_text())
    assert written["generated_images"] == images
    assert (run / f"evaluation_on_folder_{strangers.name}" / "cmc.png").exists()


@pytest.fixture(scope="module")
def one_camera(strangers, tmp_path_factory) -> Path:
    """`strangers` by one camera, with the queries in the gallery too."""
    root = tmp_path_factory.mktemp("one_camera") / "data"
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (root / folder).mkdir(parents=True)
        for n, path in enumerate(sorted((strangers / folder).glob("*.jpg"))):
            shutil.copy(path, root / folder / f"{path.name.partition('_')[0]}_c1_{n}.jpg")
    for n, path in enumerate(sorted((root / "query").iterdir())):
        shutil.copy(path, root / "bounding_box_test" / f"{path.name.partition('_')[0]}_c1_q{n}.jpg")
    return root


def of_one_camera(config, root: Path, cameras: bool) -> ml_collections.ConfigDict:
    other = config.copy_and_resolve_references()
    other.data.name, other.data.root, other.data.cameras = "folder", str(root), cameras
    return other


def test_images_of_one_camera_say_why_nothing_is_found(run, config, one_camera, tmp_path, caplog):
    found = evaluator.evaluate_fully(
        of_one_camera(config, one_camera, True), run, output=tmp_path / "x.json"
    )
    assert all(entry["metrics"]["mAP"] == 0 for entry in found["ranking"])
    assert "16 of the 16 queries have no match" in caplog.text
    for text in (caplog.text, evaluation_table(found)):
        assert "the field's protocol). If the cameras are unknown, --config.data.cameras=F" in text
    assert "16 of 16 queries have no match, an image of their person by another camera" in (
        evaluation_table(found)
    )


def test_without_cameras_the_query_s_own_image_alone_is_removed(
    run, config, one_camera, tmp_path, caplog
):
    other = of_one_camera(config, one_camera, False)
    found = evaluator.evaluate_fully(other, run, output=tmp_path / "x.json")
    assert "no match" not in caplog.text
    data, model = open_data(other), load_model(other, run)
    query, gallery = (
        (scores_of((1, 0.5), model.embeddings(split.images).astype(np.float64)), split.identities)
        for split in (data.query, data.gallery)
    )
    # The same image by its content; every other image is by another camera.
    contents = {
        path: number
        for number, content in enumerate({Path(path).read_bytes() for path in data.gallery.paths})
        for path in (*data.query.paths, *data.gallery.paths)
        if Path(path).read_bytes() == content
    }
    own, others = (
        np.array([contents[path] for path in split.paths]) for split in (data.query, data.gallery)
    )
    kept = gallery[1] != -1
    distances = distances_by_definition(query[0], gallery[0][kept], k1=5, k2=6, lambda_value=0.3)
    rows = {
        "alpha 0.5": (query[0], gallery[0]),
        "alpha 0.5, re-ranked (k1 5, k2 6, lambda 0.3)": (-distances, np.eye(kept.sum())),
    }
    for name, (scores, items) in rows.items():
        chosen = slice(None) if len(items) == len(kept) else kept
        hits = list(
            hits_by_sorting(scores, query[1], own, items, gallery[1][chosen], others[chosen])
        )
        # Of a person 4 queries and 8 images of the gallery: all but the query itself.
        assert [len(ranks) for ranks in hits] == [11] * 16
        metrics = row(found, name)
        for key, value in figures(hits).items():
            assert metrics[key] == pytest.approx(value, abs=1e-12), (name, key)
    assert evaluator.evaluate(other, run)["mAP"] == row(found, "alpha 0.5")["mAP"] > 0
    assert "config.data.cameras is off: each image counts as one" in evaluation_table(found)


def test_without_cameras_nothing_is_averaged_over_the_query_s_camera(run, config, tmp_path):
    other = config.copy_and_resolve_references()
    other.data.cameras = False
    found = evaluator.evaluate_fully(other, run, output=tmp_path / "x.json")
    assert "alpha 0.5, multi-query" not in [entry["name"] for entry in found["ranking"]]
    assert "multi-query" not in evaluation_table(found)


def test_chosen_queries_and_another_output(run, config, people, tmp_path):
    name = sorted((people / "query").glob("*.jpg"))[2].stem
    result = evaluator.evaluate_fully(
        config, run, output=tmp_path / "results" / "mine.json", queries=[name]
    )
    picture = tmp_path / "results" / "mine" / "ranked_lists.png"
    assert result["pictures"]["ranked_lists"] == str(picture)
    with Image.open(picture) as chosen, Image.open(run / "evaluation" / "ranked_lists.png") as five:
        assert chosen.width == five.width
        assert chosen.height < five.height / 3
    assert (tmp_path / "results" / "mine.json").exists()


def test_a_query_that_is_not_there_is_refused_before_anything_is_measured(run, config, tmp_path):
    with pytest.raises(InputError, match="--queries: no query has the name 'nobody'"):
        evaluator.evaluate_fully(config, run, output=tmp_path / "x.json", queries=["nobody"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["results", "folder.json"])
def test_an_output_that_is_no_json_file_is_refused(run, config, tmp_path, name):
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match=f"--output=.*{name}: name a file that ends in .json"):
        evaluator.evaluate_fully(config, run, output=tmp_path / name)


def test_an_output_below_a_file_is_refused_before_anything_is_measured(run, config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--output=.*file/x\.json: cannot be written"):
        evaluator.evaluate_fully(config, run, output=tmp_path / "file" / "x.json")


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("alpha", -0.5, r"--config\.evaluation\.alpha: found -0\.5"),
        ("rerank_k1", 0, r"--config\.evaluation\.rerank_k1: found 0"),
        ("batch_size", 0, r"--config\.evaluation\.batch_size: found 0"),
    ],
)
def test_a_setting_out_of_range_is_named(run, config, tmp_path, field, value, complaint):
    wrong = config.copy_and_resolve_references()
    wrong.evaluation[field] = value
    with pytest.raises(InputError, match=complaint):
        evaluator.evaluate_fully(wrong, run, output=tmp_path / "x.json")


def test_images_kept_too_small_for_another_data_set_give_a_warning(run, config, strangers, caplog):
    other = config.copy_and_resolve_references()
    other.data.name, other.data.root = "folder", str(strangers)
    other.data.cache_height, other.data.cache_width = 16, 8
    other.evaluation.rerank = False
    evaluator.evaluate_fully(other, run)
    assert "kept at 16 x 8 pixels" in caplog.text
    assert "--config.data.cache_height=32 --config.data.cache_width=16" in caplog.text


def test_an_older_run_s_configuration_gets_the_fields_that_are_new(run, tmp_path):
    stored = json.loads((run / "config.json").read_text())
    for name in ("rerank", "rerank_k1", "rerank_k2", "rerank_lambda"):
        del stored["evaluation"][name]
    stored["evaluation"]["alpha"] = 0.25
    (tmp_path / "config.json").write_text(json.dumps(stored))
    config = trained.get_config(str(tmp_path))
    settings = config.evaluation
    assert (settings.rerank, settings.rerank_k1, settings.rerank_k2) == (True, 20, 6)
    assert (settings.rerank_lambda, settings.alpha) == (0.3, 0.25)
