//! The op table: every elementwise op, its gradient and its documentation, once.
//!
//! `grad x:` formulas may mention the incoming gradient `g`, the result `y`, the inputs and the
//! parameters; what they mention is what is saved. `at "nn"` puts the op under `nn.functional`,
//! `at "_"` keeps it internal. `sample` is the range tests draw from. CONTRIBUTING.md, "How to add
//! an op", is the introduction.

pyrite_table::rows! {
    // ---- arithmetic ---------------------------------------------------------------------------

    /// Elementwise sum `input + alpha * other`, broadcasting.
    add(a: num, b: num; alpha = 1.0) = a + alpha * b; grad a: g; grad b: alpha * g; flag alpha; flag boolbytes; flag complex;
    /// Elementwise difference `input - alpha * other`, broadcasting.
    sub(a: num, b: num; alpha = 1.0) = a - alpha * b; grad a: g; grad b: -(alpha * g); flag alpha; flag nobool; alias "subtract"; flag complex;
    /// Elementwise product, broadcasting.
    mul(a: num, b: num) = a * b; grad a: g * b; grad b: g * a; flag boolbytes; alias "multiply"; flag complex;
    /// Elementwise true quotient; integers give the default float.
    div(a: float, b: float) = a / b; grad a: g / b; grad b: -(g * y / b); sample 0.5, 3.0; alias "divide"; alias "true_divide"; flag complex;
    /// Quotient rounded down.
    floor_divide(a: num, b: num) = floor_div(a, b); grad a: 0.0 * g; grad b: 0.0 * g; sample 1.0, 9.0; flag intzero; flag nobool;
    /// Quotient rounded towards zero (`div(rounding_mode="trunc")`).
    trunc_divide(a: num, b: num) = trunc_div(a, b); grad a: 0.0 * g; grad b: 0.0 * g; at "_"; sample 1.0, 9.0; flag intzero;
    /// Python's remainder: the result has the sign of the divisor.
    remainder(a: num, b: num) = remainder(a, b); grad a: g; grad b: -(g * floor_div(a, b)); sample 1.0, 9.0; flag intzero; flag nobool;
    /// C's remainder: the result has the sign of the dividend.
    fmod(a: num, b: num) = fmod(a, b); grad a: g; grad b: -(g * trunc(a / b)); sample 1.0, 9.0; flag intzero; flag nobool;
    /// `input` to the power `exponent`.
    pow(a: num, b: num) = pow(a, b);
        grad a: select(eq(b, 0.0), 0.0 * g, g * b * pow(a, b - 1.0));
        grad b: select(both(eq(a, 0.0), ge(b, 0.0)), 0.0 * g, g * y * log(a));
        sample 0.3, 2.5; flag nobool; flag complex;
    /// `-x`.
    neg(x: num) = -x; grad x: -g; alias "negative"; flag nobool; flag complex;
    /// The complex conjugate, computed; real numbers as they are.
    conj_physical(x: num) = conj(x); grad x: conj(g); flag boolbytes; flag complex;
    /// The absolute value.
    abs(x: num) = abs(x); grad x: g * select(gt(x, 0.0), 1.0, select(lt(x, 0.0), -1.0, 0.0)); alias "absolute"; flag nobool; flag parts;
    /// -1, 0 or 1 by the sign of x; 0 for NaN.
    sign(x: num) = select(gt(x, 0.0), 1.0, select(lt(x, 0.0), 0.0 - 1.0, 0.0)); grad x: 0.0 * g;
    /// `x * x`.
    square(x: num) = x * x; grad x: 2.0 * g * x; flag complex;
    /// `x * x * x`: what `pow` with exponent 3 runs.
    cube(x: num) = x * x * x; grad x: 3.0 * g * x * x; at "_"; flag complex;
    /// `1 / x`.
    reciprocal(x: float) = 1.0 / x; grad x: -(g * y * y); sample 0.4, 3.0; flag complex;
    /// The square root.
    sqrt(x: float) = sqrt(x); grad x: g / (2.0 * y); sample 0.1, 4.0; flag complex;
    /// `1 / sqrt(x)`.
    rsqrt(x: float) = 1.0 / sqrt(x); grad x: -0.5 * g * y * y * y; sample 0.2, 4.0; flag complex;
    /// `start + weight * (end - start)`.
    lerp(a: float, b: float, w: float) = select(lt(abs(w), 0.5), a + w * (b - a), b - (b - a) * (1.0 - w));
        grad a: g * (1.0 - w); grad b: g * w; grad w: g * (b - a); flag complex;
    /// `input + value * tensor1 * tensor2`.
    addcmul(a: num, b: num, c: num; value = 1.0) = a + value * b * c; grad a: g; grad b: g * value * c; grad c: g * value * b; flag kwparams; flag complex;
    /// `input + value * tensor1 / tensor2`.
    addcdiv(a: float, b: float, c: float; value = 1.0) = a + value * (b / c);
        grad a: g; grad b: g * value / c; grad c: -(g * value * b / (c * c)); sample 0.5, 2.0; flag kwparams; flag complex;

    // ---- exponentials and logarithms ----------------------------------------------------------

    /// `e` to the power x.
    exp(x: float) = exp(x); grad x: g * y; flag complex;
    /// 2 to the power x.
    exp2(x: float) = exp2(x); grad x: g * y * 0.6931471805599453; flag complex;
    /// `exp(x) - 1`, accurate near 0.
    expm1(x: float) = expm1(x); grad x: g * (y + 1.0); flag complex;
    /// The natural logarithm.
    log(x: float) = log(x); grad x: g / x; sample 0.1, 5.0; flag complex;
    /// The logarithm to base 2.
    log2(x: float) = log2(x); grad x: g / (x * 0.6931471805599453); sample 0.1, 5.0; flag complex;
    /// The logarithm to base 10.
    log10(x: float) = log10(x); grad x: g / (x * 2.302585092994046); sample 0.1, 5.0; flag complex;
    /// `log(1 + x)`, accurate near 0.
    log1p(x: float) = log1p(x); grad x: g / (x + 1.0); sample -0.7, 5.0; flag complex;
    /// `log(exp(a) + exp(b))` without overflow.
    logaddexp(a: float, b: float) = select(eq(a, b), a + 0.6931471805599453, hi + log1p(exp(lo - hi)))
            where hi = select(lt(a, b), b, a), lo = select(lt(a, b), a, b);
        grad a: g / (1.0 + exp(b - a)); grad b: g / (1.0 + exp(a - b)); flag complex;
    /// `log2(2^a + 2^b)` without overflow.
    logaddexp2(a: float, b: float) = select(eq(a, b), a + 1.0, maximum(a, b) + 1.4426950408889634 * log1p(exp2(-abs(a - b))));
        grad a: g / (1.0 + exp2(b - a)); grad b: g / (1.0 + exp2(a - b));
    /// `x * log(y)`, 0 where x is 0.
    xlogy(a: float, b: float) = select(both(eq(a, 0.0), eq(b, b)), 0.0, a * log(b));
        grad a: select(both(eq(a, 0.0), le(b, 0.0)), 0.0 * g, g * log(b)); grad b: g * a / b; sample 0.2, 3.0;
    /// `log(x / (1 - x))`.
    logit(x: float) = select(lt(abs(x - 0.5), 0.25), log1p((2.0 * x - 1.0) / (1.0 - x)), log(x / (1.0 - x)));
        grad x: select(both(ge(x, 0.0), le(x, 1.0)), g / (x * (1.0 - x)), nan); sample 0.1, 0.9;

    // ---- trigonometric and hyperbolic ---------------------------------------------------------

    /// The sine.
    sin(x: float) = sin(x); grad x: g * cos(x); flag complex;
    /// The cosine.
    cos(x: float) = cos(x); grad x: -(g * sin(x)); flag complex;
    /// The tangent.
    tan(x: float) = tan(x); grad x: g * (1.0 + y * y); sample -1.2, 1.2; flag complex;
    /// The inverse sine.
    asin(x: float) = asin(x); grad x: g / sqrt(1.0 - x * x); sample -0.8, 0.8; alias "arcsin"; flag complex;
    /// The inverse cosine.
    acos(x: float) = acos(x); grad x: -(g / sqrt(1.0 - x * x)); sample -0.8, 0.8; alias "arccos"; flag complex;
    /// The inverse tangent.
    atan(x: float) = atan(x); grad x: g / (x * x + 1.0); alias "arctan"; flag complex;
    /// The angle of the point (other, input).
    atan2(a: float, b: float) = atan2(a, b);
        grad a: select(both(eq(a, 0.0), eq(b, 0.0)), 0.0, g * b / (a * a + b * b));
        grad b: select(both(eq(a, 0.0), eq(b, 0.0)), 0.0, -(g * a / (a * a + b * b))); sample 0.3, 2.0; alias "arctan2";
    /// The hyperbolic sine.
    sinh(x: float) = sinh(x); grad x: g * cosh(x); flag complex;
    /// The hyperbolic cosine.
    cosh(x: float) = cosh(x); grad x: g * sinh(x); flag complex;
    /// The hyperbolic tangent.
    tanh(x: float) = tanh(x); grad x: g * (1.0 - y * y); flag complex;
    /// The inverse hyperbolic sine.
    asinh(x: float) = asinh(x); grad x: g / sqrt(x * x + 1.0); alias "arcsinh"; flag complex;
    /// The inverse hyperbolic cosine.
    acosh(x: float) = acosh(x); grad x: g / (sqrt(x - 1.0) * sqrt(x + 1.0)); sample 1.2, 4.0; alias "arccosh"; flag complex;
    /// The inverse hyperbolic tangent.
    atanh(x: float) = atanh(x); grad x: g / (1.0 - x * x); sample -0.8, 0.8; alias "arctanh"; flag complex;
    /// `sqrt(a^2 + b^2)` without overflow.
    hypot(a: float, b: float) = hypot(a, b); grad a: g * (a / y); grad b: g * (b / y); sample 0.3, 2.0;
    /// `sin(pi x) / (pi x)`, 1 at 0.
    sinc(x: float) = select(eq(x, 0.0), 1.0, sin(pi * x) / (pi * x));
        grad x: select(eq(x, 0.0), 0.0 * g, g * (cos(pi * x) * (pi * x) - sin(pi * x)) / (pi * x * x)); flag complex;
    /// Degrees to radians.
    deg2rad(x: float) = x * 0.017453292519943295; grad x: g * 0.017453292519943295;
    /// Radians to degrees.
    rad2deg(x: float) = x * 57.29577951308232; grad x: g * 57.29577951308232;

    // ---- rounding and parts -------------------------------------------------------------------

    /// The greatest integer not above x.
    floor(x: float) = floor(x); grad x: 0.0 * g; flag intself;
    /// The smallest integer not below x.
    ceil(x: float) = ceil(x); grad x: 0.0 * g; flag intself;
    /// The integer part.
    trunc(x: float) = trunc(x); grad x: 0.0 * g; flag intself; alias "fix";
    /// To the nearest integer, ties to even (`round` with decimals is built on it).
    round(x: float) = round(x); grad x: 0.0 * g; at "_"; flag intself;
    /// The fractional part, with the sign of x.
    frac(x: float) = x - trunc(x); grad x: g;
    /// The magnitude of the first with the sign of the second.
    copysign(a: float, b: float) = copysign(a, b);
        grad a: select(eq(a, 0.0), 0.0 * g, select(differ(signbit(a), signbit(b)), -g, g)); grad b: 0.0 * g;
    /// The next representable value after the first, towards the second.
    nextafter(a: float, b: float) = nextafter(a, b); grad a: select(eq(a, b), 0.0, g); grad b: 0.0 * g;

    // ---- error function, gamma ----------------------------------------------------------------

    /// The error function.
    erf(x: float) = erf(x); grad x: 1.1283791670955126 * g * exp(-(x * x));
    /// `1 - erf(x)`, accurate for large x.
    erfc(x: float) = erfc(x); grad x: -1.1283791670955126 * g * exp(-(x * x));
    /// The inverse of `erf`.
    erfinv(x: float) = erfinv(x); grad x: 0.886226925452758 * g * exp(y * y); sample -0.8, 0.8;
    /// The logarithm of the absolute value of the gamma function.
    lgamma(x: float) = lgamma(x); grad x: g * digamma(x); sample 0.5, 4.0;
    /// The derivative of `lgamma`.
    digamma(x: float) = digamma(x); grad x: g * polygamma(1.0, x); sample 0.5, 4.0;

    // ---- special functions (pyrite-special) -----------------------------------------------------

    /// The modified Bessel function of the first kind, order 0.
    i0(x: float) = i0(x); grad x: g * i1(x);
    /// `exp(-|x|) i0(x)`.
    i0e(x: float) = i0e(x); grad x: g * (i1e(x) - select(gt(x, 0.0), y, select(lt(x, 0.0), -y, 0.0))); at "special";
    /// The modified Bessel function of the first kind, order 1.
    i1(x: float) = i1(x); grad x: select(eq(x, 0.0), 0.5 * g, g * (i0(x) - y / x)); at "special";
    /// `exp(-|x|) i1(x)`.
    i1e(x: float) = i1e(x);
        grad x: select(eq(x, 0.0), 0.5 * g, g * (i0e(x) - y / x - select(gt(x, 0.0), y, -y))); at "special";
    /// The Bessel function of the first kind, order 0.
    bessel_j0(x: float) = bessel_j0(x); grad x: -(g * bessel_j1(x)); at "special";
    /// The Bessel function of the first kind, order 1.
    bessel_j1(x: float) = bessel_j1(x); grad x: select(eq(x, 0.0), 0.5 * g, g * (bessel_j0(x) - y / x)); at "special";
    /// The Bessel function of the second kind, order 0.
    bessel_y0(x: float) = bessel_y0(x); grad x: -(g * bessel_y1(x)); at "special"; sample 0.5, 5.0;
    /// The Bessel function of the second kind, order 1.
    bessel_y1(x: float) = bessel_y1(x); grad x: g * (bessel_y0(x) - y / x); at "special"; sample 0.5, 5.0;
    /// The modified Bessel function of the first kind, order 0.
    modified_bessel_i0(x: float) = i0(x); grad x: g * i1(x); at "special";
    /// The modified Bessel function of the first kind, order 1.
    modified_bessel_i1(x: float) = i1(x); grad x: select(eq(x, 0.0), 0.5 * g, g * (i0(x) - y / x)); at "special";
    /// The modified Bessel function of the second kind, order 0.
    modified_bessel_k0(x: float) = modified_bessel_k0(x); grad x: -(g * modified_bessel_k1(x)); at "special"; sample 0.5, 5.0;
    /// The modified Bessel function of the second kind, order 1.
    modified_bessel_k1(x: float) = modified_bessel_k1(x); grad x: -(g * (modified_bessel_k0(x) + y / x)); at "special"; sample 0.5, 5.0;
    /// `exp(x)` times `modified_bessel_k0(x)`.
    scaled_modified_bessel_k0(x: float) = scaled_modified_bessel_k0(x);
        grad x: g * (y - scaled_modified_bessel_k1(x)); at "special"; sample 0.5, 5.0;
    /// `exp(x)` times `modified_bessel_k1(x)`.
    scaled_modified_bessel_k1(x: float) = scaled_modified_bessel_k1(x);
        grad x: g * (y - scaled_modified_bessel_k0(x) - y / x); at "special"; sample 0.5, 5.0;
    /// `sin(x) / x`, 1 at 0.
    spherical_bessel_j0(x: float) = select(eq(x, 0.0), 1.0, select(eq(abs(x), inf), 0.0, sin(x) / x));
        grad x: select(eq(x, 0.0), 0.0 * g, g * (cos(x) - y) / x); at "special";
    /// Airy's function Ai.
    airy_ai(x: float) = airy_ai(x); at "special";
    /// `exp(x^2) erfc(x)`.
    erfcx(x: float) = erfcx(x); grad x: g * (2.0 * x * y - 1.1283791670955126); at "special";
    /// The distribution function of the normal distribution.
    ndtr(x: float) = ndtr(x); grad x: g * 0.3989422804014327 * exp(-0.5 * x * x); at "special";
    /// `log(ndtr(x))`, accurate where `ndtr` is small.
    log_ndtr(x: float) = log_ndtr(x); grad x: g * 0.7978845608028654 / erfcx(-0.7071067811865476 * x); at "special";
    /// The inverse of `ndtr`.
    ndtri(x: float) = ndtri(x); grad x: g * 2.5066282746310002 * exp(0.5 * y * y); at "special"; sample 0.05, 0.95;
    /// `-x log(x)`; 0 at 0 and `-inf` below.
    entr(x: float) = select(gt(x, 0.0), -(x * log(x)), select(eq(x, 0.0), 0.0, select(lt(x, 0.0), -inf, x)));
        grad x: -(g * (1.0 + log(x))); at "special"; sample 0.1, 3.0;
    /// `x * log1p(y)`, 0 where x is 0.
    xlog1py(a: float, b: float) = select(both(eq(a, 0.0), eq(b, b)), 0.0, a * log1p(b));
        grad a: select(both(eq(a, 0.0), le(b, -1.0)), 0.0 * g, g * log1p(b)); grad b: g * a / (b + 1.0);
        at "special"; sample 0.2, 3.0;
    /// The Hurwitz zeta function: the sum over k of `(other + k) ** -input`.
    zeta(a: float, b: float) = zeta(a, b); grad b: -(g * a * zeta(a + 1.0, b)); at "special"; sample 1.5, 6.0;
    /// The derivative of order n of `digamma`, n >= 1.
    polygamma(n: float, x: float) = polygamma(n, x); grad x: g * polygamma(n + 1.0, x); at "_"; sample 1.0, 4.0;
    /// The lower regularised incomplete gamma function P.
    igamma(a: float, x: float) = gammainc(a, x); grad x: g * exp((a - 1.0) * log(x) - x - lgamma(a)); sample 0.5, 5.0;
    /// The upper regularised incomplete gamma function, `1 - P`.
    igammac(a: float, x: float) = gammaincc(a, x); grad x: -(g * exp((a - 1.0) * log(x) - x - lgamma(a))); sample 0.5, 5.0;
    /// `input * 2 ** other`.
    ldexp(a: float, b: float) = a * power_of_two(b); grad a: g * exp2(b); grad b: g * y * 0.6931471805599453; flag parts;
    /// The mantissa of `frexp`.
    frexp_mantissa(x: float) = frexp_mantissa(x); grad x: g * exp2(-frexp_exponent(x)); at "_";
    /// The exponent of `frexp`, as a float.
    frexp_exponent(x: float) = frexp_exponent(x); grad x: 0.0 * g; at "_";
    /// The Chebyshev polynomial of the first kind, of order n (cut to an integer; 0 below 0).
    chebyshev_polynomial_t(x: float, n: float) = chebyshev_polynomial_t(x, n); at "special"; sample 0.0, 4.0;
    /// The Chebyshev polynomial of the second kind, of order n (cut to an integer; 0 below 0).
    chebyshev_polynomial_u(x: float, n: float) = chebyshev_polynomial_u(x, n); at "special"; sample 0.0, 4.0;
    /// The Chebyshev polynomial of the third kind, of order n (cut to an integer; 0 below 0).
    chebyshev_polynomial_v(x: float, n: float) = chebyshev_polynomial_v(x, n); at "special"; sample 0.0, 4.0;
    /// The Chebyshev polynomial of the fourth kind, of order n (cut to an integer; 0 below 0).
    chebyshev_polynomial_w(x: float, n: float) = chebyshev_polynomial_w(x, n); at "special"; sample 0.0, 4.0;
    /// The Chebyshev polynomial of the first kind at `2 x - 1`, of order n (cut to an integer; 0 below 0).
    shifted_chebyshev_polynomial_t(x: float, n: float) = shifted_chebyshev_polynomial_t(x, n); at "special"; sample 0.0, 4.0;
    /// The Chebyshev polynomial of the second kind at `2 x - 1`, of order n (cut to an integer; 0 below 0).
    shifted_chebyshev_polynomial_u(x: float, n: float) = shifted_chebyshev_polynomial_u(x, n); at "special"; sample 0.0, 4.0;
    /// The Chebyshev polynomial of the third kind at `2 x - 1`, of order n (cut to an integer; 0 below 0).
    shifted_chebyshev_polynomial_v(x: float, n: float) = shifted_chebyshev_polynomial_v(x, n); at "special"; sample 0.0, 4.0;
    /// The Chebyshev polynomial of the fourth kind at `2 x - 1`, of order n (cut to an integer; 0 below 0).
    shifted_chebyshev_polynomial_w(x: float, n: float) = shifted_chebyshev_polynomial_w(x, n); at "special"; sample 0.0, 4.0;
    /// The physicists' Hermite polynomial, of order n (cut to an integer; 0 below 0).
    hermite_polynomial_h(x: float, n: float) = hermite_polynomial_h(x, n); at "special"; sample 0.0, 4.0;
    /// The probabilists' Hermite polynomial, of order n (cut to an integer; 0 below 0).
    hermite_polynomial_he(x: float, n: float) = hermite_polynomial_he(x, n); at "special"; sample 0.0, 4.0;
    /// The Laguerre polynomial, of order n (cut to an integer; 0 below 0).
    laguerre_polynomial_l(x: float, n: float) = laguerre_polynomial_l(x, n); at "special"; sample 0.0, 4.0;
    /// The Legendre polynomial, of order n (cut to an integer; 0 below 0).
    legendre_polynomial_p(x: float, n: float) = legendre_polynomial_p(x, n); at "special"; sample 0.0, 4.0;

    // ---- extrema ------------------------------------------------------------------------------

    /// The greater one; NaN if either is NaN.
    maximum(a: num, b: num) = maximum(a, b);
        grad a: select(eq(a, b), 0.5 * g, select(lt(a, b), 0.0, g)); grad b: select(eq(a, b), 0.5 * g, select(lt(b, a), 0.0, g)); flag boolbytes;
    /// The smaller one; NaN if either is NaN.
    minimum(a: num, b: num) = minimum(a, b);
        grad a: select(eq(a, b), 0.5 * g, select(gt(a, b), 0.0, g)); grad b: select(eq(a, b), 0.5 * g, select(gt(b, a), 0.0, g)); flag boolbytes;
    /// The greater one; a number wins over NaN.
    fmax(a: num, b: num) = select(ne(b, b), a, select(either(ne(a, a), lt(a, b)), b, a));
        grad a: select(either(ge(a, b), ne(b, b)), g, 0.0); grad b: select(either(ge(a, b), ne(b, b)), 0.0, g); flag boolbytes;
    /// The smaller one; a number wins over NaN.
    fmin(a: num, b: num) = select(ne(b, b), a, select(either(ne(a, a), lt(b, a)), b, a));
        grad a: select(either(le(a, b), ne(b, b)), g, 0.0); grad b: select(either(le(a, b), ne(b, b)), 0.0, g); flag boolbytes;
    /// Values below `min` become `min`, above `max` become `max` (scalars).
    clamp_scalars(x: num; lo, hi) = minimum(maximum(x, lo), hi);
        grad x: select(both(ge(x, lo), le(x, hi)), g, 0.0); at "_";
    /// `max(x, min)` with a tensor or number.
    clamp_min(x: num, lo: num) = maximum(x, lo); grad x: select(ge(x, lo), g, 0.0); grad lo: select(lt(x, lo), g, 0.0);
    /// `min(x, max)` with a tensor or number.
    clamp_max(x: num, hi: num) = minimum(x, hi); grad x: select(le(x, hi), g, 0.0); grad hi: select(gt(x, hi), g, 0.0);
    /// Between two tensors.
    clamp_tensors(x: num, lo: num, hi: num) = minimum(maximum(x, lo), hi);
        grad x: select(both(ge(x, lo), le(x, hi)), g, 0.0);
        grad lo: select(both(lt(x, lo), lt(lo, hi)), g, 0.0);
        grad hi: select(either(gt(x, hi), gt(lo, hi)), g, 0.0); at "_";

    // ---- comparisons --------------------------------------------------------------------------

    /// True where equal.
    eq(a: any, b: any) -> bool = eq(a, b); flag complex;
    /// True where not equal.
    ne(a: any, b: any) -> bool = ne(a, b); alias "not_equal"; flag complex;
    /// True where a < b.
    lt(a: any, b: any) -> bool = lt(a, b); alias "less";
    /// True where a <= b.
    le(a: any, b: any) -> bool = le(a, b); alias "less_equal";
    /// True where a > b.
    gt(a: any, b: any) -> bool = gt(a, b); alias "greater";
    /// True where a >= b.
    ge(a: any, b: any) -> bool = ge(a, b); alias "greater_equal";
    /// True where x is NaN.
    isnan(x: any) -> bool = ne(x, x); flag complex;
    /// True where x is infinite.
    isinf(x: float) -> bool = eq(abs(x), inf); flag keepint; flag parts;
    /// True where x is neither infinite nor NaN.
    isfinite(x: float) -> bool = lt(abs(x), inf); flag keepint; flag parts;
    /// True where x is positive infinity.
    isposinf(x: float) -> bool = eq(x, inf); flag keepint;
    /// True where x is negative infinity.
    isneginf(x: float) -> bool = eq(x, -inf); flag keepint;
    /// True where the sign bit is set.
    signbit(x: float) -> bool = signbit(x); flag keepint;

    // ---- logical and bitwise ------------------------------------------------------------------

    /// True where both are non-zero.
    logical_and(a: any, b: any) -> bool = both(ne(a, 0.0), ne(b, 0.0)); flag complex;
    /// True where either is non-zero.
    logical_or(a: any, b: any) -> bool = either(ne(a, 0.0), ne(b, 0.0)); flag complex;
    /// True where exactly one is non-zero.
    logical_xor(a: any, b: any) -> bool = differ(ne(a, 0.0), ne(b, 0.0)); flag complex;
    /// True where x is zero.
    logical_not(x: any) -> bool = eq(x, 0.0); flag complex;
    /// Bitwise and; logical for bool.
    bitwise_and(a: int, b: int) = a & b; sample 0.0, 100.0;
    /// Bitwise or; logical for bool.
    bitwise_or(a: int, b: int) = a | b; sample 0.0, 100.0;
    /// Bitwise exclusive or; logical for bool.
    bitwise_xor(a: int, b: int) = a ^ b; sample 0.0, 100.0;
    /// Bitwise not; logical for bool.
    bitwise_not(x: int) = !x; sample 0.0, 100.0;
    /// `a << b`.
    bitwise_left_shift(a: int, b: int) = shl(a, b); sample 0.0, 7.0; flag nobool;
    /// `a >> b`, arithmetic.
    bitwise_right_shift(a: int, b: int) = shr(a, b); sample 0.0, 7.0; flag nobool;
    /// The greatest common divisor.
    gcd(a: int, b: int) = gcd(a, b); sample 0.0, 100.0; flag nobool;
    /// The least common multiple.
    lcm(a: int, b: int) = lcm(a, b); sample 0.0, 100.0; flag nobool;

    // ---- selection ----------------------------------------------------------------------------

    /// `a` where the condition is true, else `b`. (The condition is the first operand.)
    where(c: any, a: any, b: any) = select(ne(c, 0.0), a, b);
        grad a: select(ne(c, 0.0), g, 0.0); grad b: select(ne(c, 0.0), 0.0, g); at "_"; flag condition; flag complex;
    /// `value` where the mask is true.
    masked_fill_scalar(x: any, m: any; value) = select(ne(m, 0.0), value, x); grad x: select(ne(m, 0.0), 0.0, g); at "_"; flag condition; flag complex;
    /// 0 where x < 0 or NaN, `values` where x == 0, 1 above.
    heaviside(a: num, b: num) = select(eq(a, 0.0), b, select(gt(a, 0.0), 1.0, 0.0));

    // ---- activations --------------------------------------------------------------------------

    /// `1 / (1 + exp(-x))`.
    sigmoid(x: float) = sigmoid(x); grad x: g * y * (1.0 - y); flag complex;
    /// `max(x, 0)`.
    relu(x: num) = maximum(x, 0.0); grad x: select(le(y, 0.0), 0.0, g);
    /// `min(max(x, 0), 6)`.
    relu6(x: num) = minimum(maximum(x, 0.0), 6.0); grad x: select(both(gt(x, 0.0), lt(x, 6.0)), g, 0.0); at "nn"; sample -3.0, 8.0;
    /// x where positive, else `negative_slope * x`.
    leaky_relu(x: float; negative_slope = 0.01) = select(gt(x, 0.0), x, negative_slope * x); grad x: select(gt(x, 0.0), g, negative_slope * g); at "nn";
    /// x where positive, else `alpha * (exp(x) - 1)` (Clevert et al., 2015).
    elu(x: float; alpha = 1.0) = select(gt(x, 0.0), x, alpha * expm1(x)); grad x: select(le(x, 0.0), g * alpha * exp(x), g); at "nn";
    /// `scale * elu(x, alpha)` with the constants of Klambauer et al., 2017.
    selu(x: float) = 1.0507009873554805 * select(gt(x, 0.0), x, 1.6732632423543772 * expm1(x));
        grad x: 1.0507009873554805 * select(le(x, 0.0), g * 1.6732632423543772 * exp(x), g);
    /// `max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))` (Barron, 2017).
    celu(x: float; alpha = 1.0) = select(gt(x, 0.0), x, alpha * expm1(x / alpha)); grad x: select(le(x, 0.0), g * exp(x / alpha), g);
    /// `x * Phi(x)` (Hendrycks and Gimpel, 2016).
    gelu_erf(x: float) = 0.5 * x * (1.0 + erf(x * 0.7071067811865476));
        grad x: g * (0.5 * (1.0 + erf(x * 0.7071067811865476)) + x * 0.3989422804014327 * exp(-0.5 * x * x)); at "_";
    /// The tanh approximation of `gelu`.
    gelu_tanh(x: float) = 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
        grad x: g * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 0.134145 * x * x))
            where t = tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)); at "_";
    /// `x * sigmoid(x)` (Elfwing et al., 2017).
    silu(x: float) = x * sigmoid(x); grad x: g * s * (1.0 + x * (1.0 - s)) where s = sigmoid(x); at "nn"; flag complex;
    /// `x * tanh(softplus(x))` (Misra, 2019).
    mish(x: float) = x * tanh(select(gt(x, 20.0), x, log1p(exp(x))));
        grad x: g * (t + x * (1.0 - t * t) * sigmoid(x)) where t = tanh(select(gt(x, 20.0), x, log1p(exp(x)))); at "nn";
    /// `log(1 + exp(beta * x)) / beta`, linear above `threshold`.
    softplus(x: float; beta = 1.0, threshold = 20.0) = select(gt(x * beta, threshold), x, log1p(exp(x * beta)) / beta);
        grad x: select(gt(x * beta, threshold), g, g * sigmoid(x * beta)); at "nn";
    /// `log(sigmoid(x))`.
    logsigmoid(x: float) = minimum(x, 0.0) - log1p(exp(-abs(x))); grad x: g * sigmoid(-x); at "nn";
    /// `x / (1 + |x|)`.
    softsign(x: float) = x / (1.0 + abs(x)); grad x: g / ((1.0 + abs(x)) * (1.0 + abs(x))); at "nn"; flag parts;
    /// `x - tanh(x)`.
    tanhshrink(x: float) = x - tanh(x); grad x: g * t * t where t = tanh(x); at "nn"; flag complex;
    /// x clipped to `min_val`..`max_val`.
    hardtanh(x: num; min_val = -1.0, max_val = 1.0) = minimum(maximum(x, min_val), max_val);
        grad x: select(both(gt(x, min_val), lt(x, max_val)), g, 0.0); at "nn";
    /// `relu6(x + 3) / 6`.
    hardsigmoid(x: float) = minimum(maximum(x + 3.0, 0.0), 6.0) / 6.0; grad x: select(both(gt(x, -3.0), lt(x, 3.0)), g / 6.0, 0.0); at "nn"; sample -5.0, 5.0;
    /// `x * relu6(x + 3) / 6`.
    hardswish(x: float) = x * minimum(maximum(x + 3.0, 0.0), 6.0) / 6.0;
        grad x: select(le(x, -3.0), 0.0, select(lt(x, 3.0), g * (x / 3.0 + 0.5), g)); at "nn"; sample -5.0, 5.0;
    /// 0 where |x| <= lambd, else x.
    hardshrink(x: float; lambd = 0.5) = select(both(ge(x, -lambd), le(x, lambd)), 0.0, x); grad x: select(both(ge(x, -lambd), le(x, lambd)), 0.0, g);
    /// x moved towards 0 by `lambd`, 0 in between.
    softshrink(x: float; lambd = 0.5) = select(gt(x, lambd), x - lambd, select(lt(x, -lambd), x + lambd, 0.0 * x));
        grad x: select(either(gt(x, lambd), lt(x, -lambd)), g, 0.0); at "nn";
    /// x where x > threshold, else `value`.
    threshold(x: num; threshold, value) = select(gt(x, threshold), x, select(eq(x, x), value, x)); grad x: select(le(x, threshold), 0.0, g);
    /// NaN and infinities replaced.
    nan_to_num_scalars(x: num; nan_value, posinf, neginf) = select(ne(x, x), nan_value, select(eq(x, inf), posinf, select(eq(x, -inf), neginf, x)));
        grad x: select(lt(abs(x), inf), g, 0.0); at "_";
    /// x where positive, else `weight * x`.
    prelu_kernel(x: float, w: float) = select(gt(x, 0.0), x, w * x); grad x: select(gt(x, 0.0), g, w * g); grad w: select(gt(x, 0.0), 0.0, g * x); at "_";
}
