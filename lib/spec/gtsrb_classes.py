"""The classes of the German Traffic Sign Recognition Benchmark (Stallkamp et al. 2012)."""

# fmt: off
NAMES = [
    "20 km/h", "30 km/h", "50 km/h", "60 km/h", "70 km/h", "80 km/h", "end of 80 km/h",
    "100 km/h", "120 km/h", "no passing", "no passing for trucks", "right of way",
    "priority road", "give way", "stop", "no vehicles", "no trucks", "no entry", "danger",
    "curve left", "curve right", "double curve", "bumpy road", "slippery road",
    "narrows on the right", "road works", "traffic lights", "pedestrians", "children", "bicycles",
    "ice or snow", "wild animals", "end of limits", "turn right", "turn left", "ahead only",
    "ahead or right", "ahead or left", "keep right", "keep left", "roundabout",
    "end of no passing", "end of no passing, trucks",
]
# fmt: on
CLASSES = len(NAMES)
