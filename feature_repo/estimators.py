"""How models are fitted. Imports no feature store, so that a worker which only trains needs none."""

from sklearn.ensemble import HistGradientBoostingClassifier


def gradient_boosting() -> HistGradientBoostingClassifier:
    """Boosted trees; they take missing values as they are, and the same data always gives the same model."""
    return HistGradientBoostingClassifier(
        learning_rate=0.08,
        max_iter=150,
        max_leaf_nodes=31,
        min_samples_leaf=200,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=7,
    )
