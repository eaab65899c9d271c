"""Measures of clusterings with known answers, and the names of clusters."""

import numpy as np
import pytest

from evaluation.clusters import cluster_measures, cluster_names

CLASS_NAMES = ("motion_blur", "contrast", "pristine")
CLUSTERS = np.zeros(100, int)
TYPES = np.array([1] * 71 + [0] * 22 + [2] * 7)
QUALITIES = np.linspace(38, 77, 100)


def test_a_perfect_clustering_has_perfect_measures():
    types = np.repeat(np.arange(4), 50)

    measures = cluster_measures((types + 1) % 4, types, 6)

    expected = {"active": 4, "effective": 4, "nmi": 1, "ari": 1, "purity": 1}
    assert measures == pytest.approx(expected)


def test_a_single_cluster_tells_nothing():
    types = np.repeat(np.arange(4), 50)

    measures = cluster_measures(np.zeros(200, int), types, 6)

    expected = {"active": 1, "effective": 1, "nmi": 0, "ari": 0, "purity": 0.25}
    assert measures == pytest.approx(expected)


def test_a_cluster_under_two_percent_is_not_active():
    clusters = np.array([0] * 985 + [1] * 15)

    assert cluster_measures(clusters, clusters, 2)["active"] == 1


def test_clusters_are_named_for_what_they_hold():
    directions = np.array(["high"] * 60 + ["low"] * 11 + [""] * 29)

    names = cluster_names(CLUSTERS, TYPES, directions, QUALITIES, CLASS_NAMES, 2)

    assert names == ["contrast (high) 71 %, motion_blur 22 %, quality 42–73", "empty"]


def test_a_direction_is_named_only_where_it_is_shared():
    """Three of ten go the other way."""
    directions = np.array(["high"] * 50 + ["low"] * 21 + [""] * 29)

    names = cluster_names(CLUSTERS, TYPES, directions, QUALITIES, CLASS_NAMES, 1)

    assert names == ["contrast 71 %, motion_blur 22 %, quality 42–73"]
