"""What each verifier takes for the answer of a text; programs have none."""

from rest.verify import exact, math

EXTRACT = {'math': math.extract, 'exact': exact.extract}
