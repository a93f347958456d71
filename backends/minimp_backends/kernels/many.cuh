// Several arrays, or numbers, in one kernel parameter: they travel by value with the launch, so that no table
// has to be copied to the device first.
#pragma once

template <class T, int N>
struct Many {
    T at[N];
};
