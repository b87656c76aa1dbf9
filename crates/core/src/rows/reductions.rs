//! The reduction table. `n` is the number of reduced elements, in the compute dtype.
//! any, all, argmax, std and the like are built on these or are kernels of their own.

pyrite_table::reductions! {
    /// The sum of the elements.
    sum(x: num): start 0.0; map x; combine a + b; finish a; flag complex;
    /// The mean of the elements.
    mean(x: float): start 0.0; map x; combine a + b; finish a / n; flag complex;
    /// The product of the elements.
    prod(x: num): start 1.0; map x; combine a * b; finish a; flag complex;
    /// The greatest element; NaN if there is one.
    amax(x: num): start -inf; map x; combine maximum(a, b); finish a;
    /// The smallest element; NaN if there is one.
    amin(x: num): start inf; map x; combine minimum(a, b); finish a;
    /// The sum of the elements that are not NaN.
    nansum(x: float): start 0.0; map select(ne(x, x), 0.0, x); combine a + b; finish a;
    /// The sum of absolute values.
    norm1(x: float): start 0.0; map abs(x); combine a + b; finish a;
    /// The Euclidean norm.
    norm2(x: float): start 0.0; map x * x; combine a + b; finish sqrt(a);
    /// The p-norm.
    normp(x: float; ord): start 0.0; map pow(abs(x), ord); combine a + b; finish pow(a, 1.0 / ord);
    /// The greatest absolute value.
    norminf(x: float): start 0.0; map abs(x); combine maximum(a, b); finish a;
    /// The smallest absolute value.
    normninf(x: float): start inf; map abs(x); combine minimum(a, b); finish a;
    /// The number of elements that are not zero.
    count_nonzero(x: num): start 0.0; map select(eq(x, 0.0), 0.0, 1.0); combine a + b; finish a;
    /// The mean of squares.
    meansq(x: float): start 0.0; map x * x; combine a + b; finish a / n;
}
