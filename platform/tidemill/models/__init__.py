"""Model artifacts and which of them serves.

scikit-learn's threads wait for each other by spinning, and on cores that others use as well a fit then takes twenty
times as long. They are told to sleep instead, which must happen before the first import of scikit-learn.
"""

import os
import sys

if "sklearn" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
