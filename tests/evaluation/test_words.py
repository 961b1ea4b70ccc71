import copy

import pytest
import torch

from vislens_interp import zoo
from vislens_interp.backends.base import get_backend
from vislens_interp.evaluation.words import SHIPPED, WordReadout, edit_words, readout_of
from vislens_interp.files import fingerprint
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.reference import ReferenceSet
from vislens_interp.results.words import Word, Words
from vislens_interp.targets.callable import CallableTarget


@pytest.fixture(scope="module")
def backend():
    return get_backend("embedded")


@pytest.fixture(scope="module")
def fitted(backend):
    """A landscape on a planted unit, the tarantula of the shipped read-out with noise, and on noise alone."""
    reference = ReferenceSet.of_backend(backend).at(range(0, 2118, 4))
    x = reference.embeddings(backend)
    readout = readout_of(backend)
    planted = x @ readout.weights[:, readout.words.index("tarantula")]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(x), 2, generator=generator)
    responses = torch.stack([planted / planted.std() + 0.5 * noise[:, 0], noise[:, 1]], 1)
    target = CallableTarget(lambda images: images.mean((2, 3))[:, :2], ["planted", "noise"], name="two")
    method = LandscapeEdit(goal="mean", shuffles=2, seed=0)
    return method.fit(target, backend, reference.with_responses(responses))


def test_the_pattern_of_a_words_read_out_scores_one_for_it():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    weights = torch.randn(6, 5, generator=generator)
    readout = WordReadout(list("abcde"), weights, "a test")
    covariance = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
    covariance += 0.01 * covariance.diagonal().mean() * torch.eye(6)
    scores = readout.scores(3 * (covariance @ weights).T, x)
    assert torch.allclose(scores.diagonal(), torch.ones(5), atol=1e-4)
    # Elsewhere it is the correlation of the two read-outs.
    told = x @ weights
    assert torch.allclose(scores, told.T.corrcoef(), atol=0.05)
    assert torch.allclose(readout.scores(-(covariance @ weights).T, x), -scores)


def test_a_planted_word_is_found_and_noise_has_no_words(fitted):
    up, down = (edit_words(fitted, {0: sense}) for sense in ("increase", "decrease"))
    assert up.rising[0].word == down.falling[0].word == "tarantula"
    assert up.rising[0].rank == 1
    assert up.rising[0].score == pytest.approx(-down.falling[0].score, abs=1e-6)
    assert min(word.margin for word in up) > 0
    assert all(word.score > 0 for word in up.rising)
    assert all(word.score < 0 for word in up.falling)
    assert "tarantula" in str(up)
    noise = edit_words(fitted, {1: "increase"})
    assert not noise
    assert str(noise) == "no words (none is stronger than in shuffled landscapes)"


def test_several_units_together_move_along_the_sum(fitted):
    both = edit_words(fitted, {0: "increase", 1: "decrease"})
    assert both.rising[0].word == "tarantula"


def test_no_words_without_a_shuffled_landscape(fitted):
    bare = copy.copy(fitted)
    bare.shuffled_axes = torch.zeros(0)
    assert str(edit_words(bare, {0: "increase"})) == (
        "no words (no shuffled landscape was fitted, with which they are compared)"
    )


def test_the_network_that_taught_the_words_gets_none(fitted):
    """The read-out must not have seen the target's head."""
    own = copy.copy(fitted)
    weights = fingerprint(zoo.load("efficientnet_lite0").state_dict())
    own.target = CallableTarget(lambda images: images.mean((1, 2, 3)), name="lite0")
    own.target.describe = lambda: {"fingerprint": weights}
    assert edit_words(own, {0: "increase"}).reason == "the words were learned from this network's own head"


def test_what_ships_reads_the_shipped_embedder_and_no_other(backend):
    readout = WordReadout.load(zoo.weights(SHIPPED))
    assert len(readout.words) == 1000
    assert readout.embedder == fingerprint(backend.embedder.state_dict())
    assert readout.teacher == fingerprint(zoo.load("efficientnet_lite0").state_dict())
    other = copy.copy(backend)
    other.embedder = copy.deepcopy(backend.embedder)
    other.embedder.mean += 1
    assert readout_of(other) is None
    assert readout_of(get_backend("cifar10")) is None


def test_any_vocabulary_by_a_clip(tmp_path):
    """The text tower of a tiny CLIP, with random weights, and directions whose words are known."""
    import open_clip
    from checkpoints import write_clip

    write_clip(tmp_path)
    clip, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    tokenize = lambda texts: open_clip.get_tokenizer("ViT-B-32", context_length=clip.context_length)(texts)  # noqa: E731
    vocabulary = ["river", "burning fire", "a very old spider", "grand piano in a large hall"]
    readout = WordReadout.of_clip(clip.eval(), lambda texts: tokenize(texts) % clip.vocab_size, vocabulary)
    assert len(readout.weights) == clip.visual.output_dim
    x = torch.randn(200, len(readout.weights), generator=torch.Generator().manual_seed(0))
    directions = (x.T.cov() @ readout.weights).T
    assert [vocabulary[place] for place in readout.scores(directions, x).argmax(1)] == vocabulary
    with pytest.raises(ValueError, match="vocabulary holds 1 word"):
        WordReadout.of_clip(clip, tokenize, ["river"])


def test_arguments_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"weights has shape \(4, 2\) for 3 words; expected \(D, 3\)"):
        WordReadout(["a", "b", "c"], torch.zeros(4, 2), "a test")
    readout = WordReadout(["a", "b"], torch.randn(4, 2), "a test")
    with pytest.raises(ValueError, match=r"directions has shape \(1, 3\) and x \(9, 4\); expected \(K, 4\)"):
        readout.scores(torch.zeros(1, 3), torch.randn(9, 4))
    assert torch.equal(
        WordReadout.load(readout.save(tmp_path / "w.safetensors")).weights, readout.weights.half().float()
    )


def test_words_are_kept_as_they_were():
    words = Words([Word("fox", 1, 0.5, 0.2)], [Word("ship", 1, -0.3, 0.1)], "a test")
    assert Words.from_dict(words.to_dict()) == words
    assert str(words) == "rises: fox +0.50; falls: ship -0.30"
    assert bool(words)
    assert not Words(reason="none")
