"""How models are fitted. Imports no feature store, so that a worker which only trains needs none."""

from sklearn.ensemble import HistGradientBoostingClassifier


def gradient_boosting() -> HistGradientBoostingClassifier:
    """Boosted trees, which take missing values as they are; the validation part says when more trees stop helping."""
    return HistGradientBoostingClassifier(
        learning_rate=0.15,
        max_iter=200,
        max_leaf_nodes=31,
        min_samples_leaf=100,
        l2_regularization=1.0,
        early_stopping=True,
        n_iter_no_change=8,
        random_state=7,
    )
