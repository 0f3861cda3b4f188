"""The classes of the benchmark, as train ids of label space ``streets``."""

from enum import IntEnum


class Class(IntEnum):
    """What a pixel shows. VOID is never scored: street clutter and the car's own bonnet."""

    SKY = 0
    BUILDING = 1
    ROAD = 2
    PAVEMENT = 3
    VEGETATION = 4
    TERRAIN = 5
    POLE = 6
    SIGN = 7
    FENCE = 8
    CAR = 9
    PERSON = 10
    CYCLIST = 11
    VOID = 255
