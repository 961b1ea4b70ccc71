"""Numbers of all units at once: those of a lens on each, and nothing found where there is nothing."""

import pytest
import torch
from small_layer import CONSTANT, DEAD, ORIGINAL, TWIN, UNITS, clouds

from vislens_interp import FeatureLens
from vislens_interp.atlas import Atlas
from vislens_interp.atlas.atlas import chosen_units
from vislens_interp.atlas.fitted import AtlasFit
from vislens_interp.atlas.population import describe_population, layer_map, most_alike, states
from vislens_interp.atlas.readout import fit_readouts
from vislens_interp.copies import top_rows
from vislens_interp.evaluation.words import WordReadout
from vislens_interp.files import load_state, save_state
from vislens_interp.math import pearson, ridge_gcv
from vislens_interp.methods.prototypes import likeness, prototype_rows
from vislens_interp.models import load_model
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets import CallableTarget, LayerTarget

UNIT = 4


@pytest.fixture(scope="module")
def lens(network, backend, images):
    """A lens whose VAE stays where its closed-form start put it."""
    return FeatureLens(network, "layer", UNIT, backend=backend).fit(images, lr=1e-12)


def test_a_unit_has_the_numbers_of_a_lens_on_it_alone(fitted, lens):
    found, fit = lens.evidence_[str(UNIT)], fitted.fit_
    column = fit.column_of[UNIT]
    assert fit.readouts.correlation[column].item() == pytest.approx(found.correlation, abs=1e-4)
    assert fit.readouts.p_value[column].item() == pytest.approx(found.p_value, abs=2e-3)
    assert int(fit.readouts.strong_images[column]) == found.strong_images
    assert fit.readouts.held_out == found.held_out
    assert fit.readouts.draws == 1000


def test_its_axis_is_the_lens_s(fitted, lens, backend, images):
    landscape, column = lens.landscape_, fitted.fit_.column_of[UNIT]
    axis = landscape.axis(0, landscape.latents)
    x = lens.reference_set.embeddings(backend)
    ours = x @ fitted.fit_.directions[column] / 4.0  # the prior's mean lies at four SDs of the prediction
    assert torch.allclose(ours - ours.mean(), axis - axis.mean(), atol=1e-3)


def test_after_the_lens_s_training_the_numbers_stay_near(fitted, network, backend, images):
    found = FeatureLens(network, "layer", UNIT, backend=backend).fit(images).evidence_[str(UNIT)]
    column = fitted.fit_.column_of[UNIT]
    assert fitted.fit_.readouts.correlation[column].item() == pytest.approx(found.correlation, abs=0.02)


def test_dead_constant_and_doubled_units_are_known(fitted):
    population = fitted.fit_.population
    assert [population.state[unit] for unit in (DEAD, CONSTANT, 0)] == ["dead", "constant", "alive"]
    assert population.duplicate_of[TWIN] == ORIGINAL
    assert (population.duplicate_of[:TWIN] == -1).all()
    assert population.neighbours[TWIN, 0] == ORIGINAL
    assert population.likeness[TWIN, 0] > 0.999
    assert population.neighbours[DEAD].unique().tolist() == [-1]
    assert len(fitted.fit_.readouts.correlation) == UNITS - 2


def test_likeness_is_the_correlation_of_responses(fitted):
    responses, population = fitted.fit_.responses.double(), fitted.fit_.population
    for place in (0, 3):
        other = int(population.neighbours[UNIT, place])
        expected = pearson(responses[:, UNIT], responses[:, other]).item()
        assert population.likeness[UNIT, place].item() == pytest.approx(expected, abs=1e-5)


def test_noise_passes_no_false_discovery_rate():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(400, 20, generator=generator)
    noise = torch.randn(400, 150, generator=generator)
    rows = torch.arange(400)
    found = fit_readouts(latents, noise, rows, rows[:320], rows[320:])
    assert (found.p_value < 0.05).double().mean() < 0.12
    assert (found.q_value <= 0.05).sum() <= 1
    planted = torch.cat([noise, latents[:, :30] @ torch.randn(20, 30, generator=generator)], 1)
    found = fit_readouts(latents, planted, rows, rows[:320], rows[320:])
    assert (found.q_value[150:] <= 0.05).all()
    assert (found.q_value[:150] <= 0.05).sum() <= 8  # of 38 discoveries, five in a hundred and chance
    assert found.reasons(160) == []
    assert any("correlation" in reason or "p =" in reason for reason in found.reasons(0))


def test_many_columns_in_parts_are_as_one_by_one():
    generator = torch.Generator().manual_seed(1)
    latents, rows = torch.randn(300, 12, generator=generator), torch.arange(300)
    responses = latents @ torch.randn(12, 300, generator=generator) + torch.randn(300, 300, generator=generator)
    whole = fit_readouts(latents, responses, rows, rows[:250], rows[250:], draws=100)
    for unit in (0, 255, 256, 299):
        one = fit_readouts(latents, responses[:, [unit]], rows, rows[:250], rows[250:], draws=100)
        assert torch.allclose(whole.filters[:, unit], one.filters[:, 0], atol=1e-6)
        assert whole.p_value[unit] == pytest.approx(one.p_value.item(), abs=0.011)


def test_crops_of_one_photograph_count_once(fitted):
    assert top_rows(torch.tensor([0.0, 9.0, 8.0, 7.0]), torch.tensor([0, 1, 1, 2]), 8) == [1, 3, 0]
    latents, groups = torch.randn(300, 6), torch.arange(300) // 3
    found = fit_readouts(latents, latents[:, :1], groups, torch.arange(240), torch.arange(240, 300), draws=100)
    assert found.held_out == 20


def test_the_map_puts_like_units_together():
    generator = torch.Generator().manual_seed(2)
    kinds = torch.randn(200, 3, generator=generator)
    responses = kinds[:, torch.arange(30) % 3] + 0.1 * torch.randn(200, 30, generator=generator)
    places = layer_map(responses)
    assert places.min() == 0
    assert places.max() == 1
    distance = torch.cdist(places, places)
    same = torch.arange(30)[:, None] % 3 == torch.arange(30) % 3
    assert distance[same].max() < distance[~same].min()
    assert torch.equal(places, layer_map(responses))
    assert layer_map(responses[:, :1]).tolist() == [[0.5, 0.5]]
    assert layer_map(responses[:, :2]).shape == (2, 2)


def test_responses_that_are_not_finite_are_named():
    responses = torch.randn(50, 3)
    responses[4, 1] = torch.inf
    assert states(responses) == ["alive", "not finite", "alive"]
    assert describe_population(responses).neighbours[0].tolist()[:2] == [2, -1]


def test_words_of_the_package_have_to_beat_permuted_responses(network, backend, images, monkeypatch):
    x = backend.encode(images)
    target = LayerTarget(network, "layer", ORIGINAL)
    known = ridge_gcv((x - x.mean(0)).double(), target.responses(images).double() - target.responses(images).mean())
    others = torch.randn(x.shape[1], 7, generator=torch.Generator().manual_seed(0))
    readout = WordReadout(
        ["mine", *(f"other{row}" for row in range(7))], torch.cat([known.float(), others], 1), "a test"
    )
    monkeypatch.setattr("vislens_interp.atlas.atlas.readout_of", lambda _: readout)
    fit = Atlas(network, "layer", images, backend=backend).fit(inputs=0).fit_
    assert fit.words[ORIGINAL][0] == fit.words[TWIN][0] == "mine"
    assert fit.words[DEAD] == []
    noise = CallableTarget(
        lambda seen: (seen.double().sum((1, 2, 3))[:, None] * torch.arange(1, 41) * 997.0).frac().float(),
        names=[f"noise{row}" for row in range(40)],
    )
    fit = Atlas(noise, images=images, backend=backend).fit(inputs=0).fit_
    assert sum(bool(words) for words in fit.words) <= 6


def test_words_come_from_the_direction_in_the_embedding(network, backend, images):
    seen = []

    def words(directions):
        seen.append(directions)
        return [[f"word{row}"] for row in range(len(directions))]

    fit = Atlas(network, "layer", images, backend=backend, words=words).fit(inputs=0).fit_
    assert seen[0].shape == (UNITS - 2, backend.shape[0])
    assert torch.allclose(seen[0].norm(dim=1), torch.ones(UNITS - 2), atol=1e-4)
    assert fit.words[TWIN] == [f"word{UNITS - 3}"]
    assert fit.words[DEAD] == []


def test_units_are_chosen_by_a_score(fitted):
    fit = fitted.fit_
    assert chosen_units(fit, [5, 2, 2], None, "selectivity") == [2, 5]
    best = chosen_units(fit, None, 3, "sparsity")
    assert best == sorted(fit.population.sparsity.nan_to_num(-1).topk(3).indices.tolist())
    with pytest.raises(ValueError, match=r"units=\[12\], but the layer has units 0 to 11"):
        chosen_units(fit, [12], None, "sparsity")
    with pytest.raises(ValueError, match=r"by='beauty' is unknown; expected 'selectivity', 'sparsity' or"):
        chosen_units(fit, None, 3, "beauty")
    with pytest.raises(ValueError, match=r"top=0 must be at least 1"):
        chosen_units(fit, None, 0, "sparsity")


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_the_seed_is_of_random_weights_too():
    atlas = Atlas("timm:test_resnet", "layer1", backend="embedded", seed=3)
    assert atlas.origin["seed"] == 3  # for workers
    wanted = load_model("timm:test_resnet", seed=3).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in atlas.target.model.state_dict().items())


def test_wrong_arguments_say_so(network, backend, images):
    with pytest.raises(ValueError, match=r"images holds 50 images; an atlas needs at least 200"):
        Atlas(network, "layer", images[:50], backend=backend).fit()
    with pytest.raises(ValueError, match=r"weights='w.safetensors' goes with a model by name"):
        Atlas(network, "layer", backend=backend, weights="w.safetensors")
    flat = CallableTarget(lambda seen: torch.zeros(len(seen), 2), names=["one", "two"])
    with pytest.raises(ValueError, match=r"a target says itself what it reads"):
        Atlas(flat, "layer", backend=backend)
    with pytest.raises(ValueError, match=r"none of its 2 units varies over 220 images"):
        Atlas(flat, images=images, backend=backend).fit()
    with pytest.raises(ValueError, match=r"layer 'conv9' not found in SmallLayer"):
        Atlas(network, "conv9", backend=backend)


def test_what_cannot_be_kept_is_refused_before_the_layer_is_read(network, backend, images, tmp_path, monkeypatch):
    atlas = Atlas(network, "layer", images, backend=backend)
    monkeypatch.setattr(Atlas, "_read", lambda *_: pytest.fail("the layer was read"))
    (tmp_path / "cat.png").write_bytes(b"no picture")
    for call, message in (
        (lambda: atlas.fit(shuffles=0), r"shuffles=0, draws=1000; expected 1 <= shuffles"),
        (lambda: atlas.fit(top_images=0), r"top_images=0 must be at least 1"),
        (lambda: atlas.fit(inputs=tmp_path), r"1 of 1 images in source cannot be read: cat.png"),
        (lambda: atlas.save(tmp_path / "out", units=[12]), r"units=\[12\], but the layer has units 0 to 11"),
        (lambda: atlas.save(tmp_path / "out", by="beauty"), r"by='beauty' is unknown; expected 'selectivity'"),
        (lambda: atlas.save(tmp_path / "out", top=0), r"top=0 must be at least 1"),
        (lambda: atlas.save(tmp_path / "out", shard=0), r"shard=0 must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert not (tmp_path / "out").exists()


def test_given_inputs_are_what_is_edited(network, backend, images):
    fit = Atlas(network, "layer", images, backend=backend).fit(inputs=clouds(2, seed=9)).fit_
    for unit in (0, UNIT):
        assert (fit.pictures([unit])[0] - clouds(2, seed=9)).abs().mean() < 2 / 255  # JPEG
    assert fit.input_rows[DEAD].tolist() == [-1, -1]


def test_every_unit_s_own_prototypes_are_what_is_edited(fitted, backend, images):
    fit, reference = fitted.fit_, ReferenceSet(images)
    like = likeness(backend, reference)
    for unit in (0, UNIT):
        up, down = (rows.item() for rows in prototype_rows(like, fit.responses[:, unit], reference.groups, 1))
        names = [fit.input_names[row] for row in fit.input_rows[unit].tolist()]
        assert names == [reference.names[up], reference.names[down]]
        pictures = fit.pictures([unit])[0]
        assert (pictures - images[[up, down]]).abs().mean() < 2 / 255
        read = fitted.target.responses(pictures)[:, unit]
        assert torch.allclose(fit.input_responses[fit.input_rows[unit], unit], read, atol=1e-5)
        assert read[0] > read[1]


def test_an_odd_number_of_prototypes_has_one_more_that_drives(network, backend, images):
    fit = Atlas(network, "layer", images, backend=backend).fit(inputs=3).fit_
    start = fit.standard(fit.input_responses[fit.input_rows[UNIT], UNIT], UNIT)
    assert (start > 0).tolist() == [True, True, False]
    for inputs in (-1, True):
        with pytest.raises(ValueError, match=r"inputs=\S+; expected a whole number of at least 0"):
            Atlas(network, "layer", images, backend=backend).fit(inputs=inputs)
    with pytest.raises(ValueError, match=r"inputs=111, of 220 reference images; expected at most half"):
        Atlas(network, "layer", images, backend=backend).fit(inputs=111)


def test_a_fit_of_format_1_loads(fitted, tmp_path):
    state = load_state(fitted.fit_.save(tmp_path / "fit"), "atlas fit")
    shared = clouds(2, seed=9)
    del state["input_rows"]
    state |= {"inputs": shared, "input_names": ["a", "b"], "input_responses": fitted.target.responses(shared)}
    save_state(tmp_path / "old", "atlas fit", state)
    old = AtlasFit.load(tmp_path / "old", fitted.fit_.key)
    assert torch.equal(old.responses, fitted.fit_.responses)
    assert (old.pictures([UNIT])[0] - shared).abs().mean() < 2 / 255
    state |= {"inputs": shared[:0], "input_names": [], "input_responses": torch.zeros(0, UNITS)}
    save_state(tmp_path / "bare", "atlas fit", state)
    assert AtlasFit.load(tmp_path / "bare").inputs == []


def test_units_of_two_layers_are_paired_by_their_responses():
    generator = torch.Generator().manual_seed(4)
    one = torch.randn(100, 5, generator=generator)
    one[:, 3] = 7
    other = torch.cat([torch.zeros(100, 1), -one[:, [0]], 3 * one[:, [2, 4]] + 1], 1)
    best, alike = most_alike(one, other)
    assert best[[2, 3, 4]].tolist() == [2, -1, 3]
    assert alike[[2, 4]].tolist() == pytest.approx([1, 1], abs=1e-5)
    assert most_alike(one, other[:, :1])[0].tolist() == [-1] * 5
