"""Rank-1 and verification by hand and against naive loops."""

import itertools
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.data.source import Table
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import identity

# On a line: people 0 and 1 in pairs, one picture of 2 nearer to 1 than to the other of 2.
LINE = np.array([0.0, 1.0, 10.0, 11.0, 12.5, 20.0])[:, None]
WHO = np.array([0, 0, 1, 1, 2, 2])


def distances(vectors):
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)


def test_rank1_by_hand():
    assert identity.rank1(distances(LINE), WHO) == 5 / 6
    assert identity.rank1(distances(LINE[:4]), WHO[:4]) == 1


def test_auc_by_hand():
    # Pairs of one person: 1, 1, 7.5. Of two, two are below 7.5: 1.5 and 2.5.
    assert identity.auc(distances(LINE), WHO) == pytest.approx((12 + 12 + 10) / 36)
    assert identity.auc(distances(np.zeros((4, 1))), WHO[:4]) == 0.5


def test_verification_takes_the_threshold_of_the_others():
    # Even people 0 and 2, odd ones 1 and 3. Even: pairs of one person 1 and 2, of two 4 and more: a threshold of 2.
    even = np.array([0.0, 1.0, 5.0, 7.0])
    # Odd: pairs of one person 1.5 and 3, of two 7 and more: a threshold of 3.
    odd = np.array([0.0, 1.5, 8.5, 11.5]) + 100
    vectors = np.concatenate([even, odd])[:, None]
    who = np.array([0, 0, 2, 2, 1, 1, 3, 3])
    # Odd pairs at 2: one of two accepted, all others refused. Even pairs at 3: all right.
    assert identity.verification(distances(vectors), who) == pytest.approx((0.75 + 1) / 2)


def test_scores_against_loops():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(8), 4)
    vectors = rng.normal(size=(8, 5))[who] + 0.7 * rng.normal(size=(32, 5))
    found = identity.scores(vectors, who)
    d = distances(vectors)
    pairs = [(d[i, j], who[i], who[j]) for i, j in itertools.combinations(range(32), 2)]
    same, other = [x for x, a, b in pairs if a == b], [x for x, a, b in pairs if a != b]
    assert found["auc"] == pytest.approx(np.mean([x < y for x in same for y in other]))
    hits = [who[min((j for j in range(32) if j != i), key=lambda j: d[i, j])] == who[i] for i in range(32)]
    assert found["rank1"] == np.mean(hits)

    def accuracy(side, threshold):
        own = [(x, a == b) for x, a, b in pairs if a % 2 == b % 2 == side]
        return np.mean([np.mean([(x <= threshold) == is_same for x, is_same in own if is_same == k]) for k in (0, 1)])

    best = [max(d[np.triu_indices(32, 1)], key=lambda t, side=side: accuracy(side, t)) for side in (0, 1)]
    assert found["verification"] == pytest.approx((accuracy(1, best[0]) + accuracy(0, best[1])) / 2, abs=0.02)
    assert 0.6 < found["verification"] < 1


def test_the_best_threshold_is_the_roc_curves():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is an oracle of the threshold")
    rng = np.random.default_rng(0)
    same, other = rng.gamma(4, 1, 300), rng.gamma(9, 1, 500)
    truth, apart = np.repeat([1, 0], [300, 500]), np.concatenate([same, other])
    false, true, limits = metrics.roc_curve(truth, -apart, drop_intermediate=False)
    threshold = identity.best_threshold(same, other)
    assert threshold == -limits[np.argmax(true - false)]
    # Equal but for the order of the sums.
    expected = metrics.balanced_accuracy_score(truth, apart <= threshold)
    assert identity.pair_accuracy(same, other, threshold) == pytest.approx(expected, rel=1e-12)
    assert identity.pair_accuracy(same, other, 0) == 0.5


def test_every_pair_is_drawn_once():
    who = np.array([5, 2, 5, 5, 2, 9, 7, 7])
    everything = list(itertools.combinations(range(8), 2))
    genuine = {frozenset(p) for p in everything if who[p[0]] == who[p[1]]}
    impostor = {frozenset(p) for p in everything} - genuine
    same, other = identity.draw_pairs(who, len(genuine))
    assert {frozenset(p) for p in same.tolist()} == genuine
    assert len({frozenset(p) for p in other.tolist()} & impostor) == len(genuine) == 5
    with pytest.raises(UserError, match="on 6 pairs of one person needs more pictures, these make 5"):
        identity.draw_pairs(who, 6)
    with pytest.raises(UserError, match="of two people needs more pictures, these make 0"):
        identity.draw_pairs(np.zeros(4, int), 2)
    with pytest.raises(UserError, match="these make 0"):
        identity.draw_pairs(np.zeros(0, int), 2)


def test_pairs_are_drawn_evenly_and_by_the_seed():
    who = np.array([0, 1, 0, 1, 2, 0])
    counts = np.zeros((2, 6, 6))
    for seed in range(2000):
        for kind, pairs in enumerate(identity.draw_pairs(who, 2, seed=seed)):
            np.add.at(counts[kind], (pairs.min(axis=1), pairs.max(axis=1)), 1)
    # 4 pairs of one person, 11 of two, 2 of each drawn 2000 times: within five deviations of the even share.
    for kind, total in enumerate((4, 11)):
        found = counts[kind][counts[kind] > 0]
        share = 2 / total
        assert len(found) == total
        assert np.all(np.abs(found / 2000 - share) < 5 * np.sqrt(share * (1 - share) / 2000))
    for one, again, another in zip(*(identity.draw_pairs(who, 2, seed=s) for s in (3, 3, 4)), strict=True):
        np.testing.assert_array_equal(one, again)
        assert (one != another).any()


def test_verification_at_a_threshold_of_other_people():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(24), 5)
    vectors = rng.normal(size=(24, 6))[who] + 0.6 * rng.normal(size=(120, 6))
    held_out, measured = who < 12, who >= 12

    def distances_of(rows, seed):
        return [identity.pair_distances(vectors[rows], p) for p in identity.draw_pairs(who[rows], 100, seed=seed)]

    threshold = identity.best_threshold(*distances_of(held_out, 0))
    found = identity.pair_accuracy(*distances_of(measured, 1), threshold)
    right = []
    for kind, pairs in enumerate(identity.draw_pairs(who[measured], 100, seed=1)):
        for i, j in pairs:
            apart = np.sqrt(sum((vectors[measured][i] - vectors[measured][j]) ** 2))
            right.append((apart <= threshold) == (kind == 0))
    assert found == pytest.approx(np.mean(right), rel=1e-12)
    assert 0.8 < found < 1


def test_rank1_of_edits_against_a_loop(monkeypatch):
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(10), 3)
    gallery = rng.normal(size=(10, 4))[who] + 0.5 * rng.normal(size=(30, 4))
    sources = rng.permutation(np.tile(np.arange(30), 2))
    edits = gallery[sources] + 0.5 * rng.normal(size=(60, 4))
    by_image, by_person = [], []
    for edit, source in zip(edits, sources, strict=True):
        nearest = min(range(30), key=lambda i, edit=edit: np.linalg.norm(gallery[i] - edit))
        by_image.append(nearest == source)
        by_person.append(who[nearest] == who[source])
    assert 0.3 < np.mean(by_image) < np.mean(by_person) < 1
    for size in (1, 7, 256):
        monkeypatch.setattr(identity, "BATCH", size)
        found = identity.rank1_edits(edits, sources, gallery, who)
        assert [part.tolist() for part in found] == [by_image, by_person]
    assert np.all(identity.rank1_edits(gallery, np.arange(30), gallery, who))  # unedited


def test_accuracy_against_identity_by_hand():
    right = np.array([[0, 0, 1, 0], [1, 0, 1, 1]], bool)
    apart = np.array([[0.0, 0.1, 0.2, 0.1], [0.5, 1.0, 1.5, 2.0]])
    assert identity.identity_curve((0, 1.5), right, apart, 1.0) == [
        {"strength": 0.0, "accuracy": 0.25, "same_person": 1.0, "distance": pytest.approx(0.1)},
        {"strength": 1.5, "accuracy": 0.75, "same_person": 0.5, "distance": 1.25},
    ]
    with pytest.raises(ValueError, match=r"got \(2, 4\) and \(1, 4\)"):
        identity.identity_curve((0, 1.5), right, apart[:1], 1.0)


def test_an_embedding_without_people_is_at_chance():
    rng = np.random.default_rng(1)
    found = identity.scores(rng.normal(size=(300, 8)), np.arange(300) // 3)
    assert abs(found["auc"] - 0.5) < 0.06
    assert abs(found["verification"] - 0.5) < 0.06
    assert found["rank1"] < 0.05


def source(people):
    """Pictures whose every pixel is their own number."""
    n = len(people)
    table = Table((), np.zeros((n, 0), bool), np.zeros(n, np.int8), [""] * n, identity=np.array(people))
    images = lambda rows: np.broadcast_to(np.uint8(rows)[:, None, None, None], (len(rows), 2, 2, 3))  # noqa: E731
    return SimpleNamespace(table=table, images=images)


def test_people_are_taken_whole():
    faces = source([7, 7, 7, 3, 5, 5, 9, 9, 9, 2, 2, 8, 8])
    everybody = np.arange(13)
    assert identity.whole_people(faces, everybody, 0).tolist() == [i for i in range(13) if i != 3]
    few = identity.whole_people(faces, everybody, 5)
    assert [len(set(faces.table.identity[few])), len(few)] == [4, 10]
    assert identity.whole_people(faces, everybody[:11], 100).tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    # Verification halves the people, and a half must make pairs of two of them.
    with pytest.raises(UserError, match="on 4 people or more with two pictures or more each; the split has 3 of them"):
        identity.whole_people(faces, everybody[:9], 0)
    with pytest.raises(UserError, match="the split has no pictures"):
        identity.whole_people(faces, everybody[:0], 0)


def test_embeddings_are_in_order(monkeypatch):
    monkeypatch.setattr(identity, "BATCH", 4)
    rows = np.array([4, 1, 3, 0, 2, 5])
    found = identity.embeddings(lambda x: jnp.mean(x, (1, 2)), source(range(6)), rows)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.repeat(rows[:, None] / 127.5 - 1, 3, 1), atol=1e-6)
