//! What windows of work say of what lies between two ways to work: a straight line for each, all of one slope.

/// What a unit of work cost in a window, in us of CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// A task of the worker.
    pub(super) task: f64,
    /// A round of the reference, meanwhile, on the same processor.
    pub(super) reference: f64,
}

/// Windows that followed each other, with nothing started or stopped between them.
pub(super) type Period = Vec<Window>;

/// What a task costs in one way, over what it costs in the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    pub(super) value: f64,
    /// Its standard error, by drawing the periods anew.
    pub(super) error: f64,
}

/// How often periods are drawn anew.
const DRAWS: usize = 300;
/// Of each end of a way's windows, by how far they lie from its line, so large a part is left out: 1 in so many.
const TRIMMED: usize = 10;

/// Each way against the first.
pub(super) fn ratios(ways: &[Vec<Period>]) -> Vec<Ratio> {
    let values = over_first(ways);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let draws: Vec<Vec<f64>> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<Vec<Period>> = ways.iter().map(|periods| random.draw(periods)).collect();
            over_first(&drawn)
        })
        .collect();
    let ratio = |(way, value): (usize, f64)| {
        let of_way = || draws.iter().map(|draw| draw[way]);
        let mean = of_way().sum::<f64>() / DRAWS as f64;
        let variance = of_way().map(|one| (one - mean).powi(2)).sum::<f64>() / DRAWS as f64;
        Ratio {
            value,
            error: variance.sqrt(),
        }
    };
    values.into_iter().enumerate().map(ratio).collect()
}

/// Logarithms of a window's reference and task.
type Point = (f64, f64);

fn over_first(ways: &[Vec<Period>]) -> Vec<f64> {
    let mut points: Vec<Vec<Point>> = ways.iter().map(|periods| points(periods)).collect();
    let rough = slope(&points);
    for of_way in &mut points {
        trim(of_way, rough);
    }
    let slope = slope(&points);
    let levels: Vec<f64> = points.iter().map(|of_way| level(of_way, slope)).collect();
    levels.iter().map(|level| (level - levels[0]).exp()).collect()
}

fn points(periods: &[Period]) -> Vec<Point> {
    let windows = periods.iter().flatten();
    windows
        .map(|window| (window.reference.ln(), window.task.ln()))
        .collect()
}

/// By how much a task gets dearer where the reference does, within each way.
fn slope(ways: &[Vec<Point>]) -> f64 {
    let (mut together, mut alone) = (0.0, 0.0);
    for points in ways {
        let (x, y) = means(points);
        together += points
            .iter()
            .map(|point| (point.0 - x) * (point.1 - y))
            .sum::<f64>();
        alone += points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    }
    if alone > 0.0 { together / alone } else { 0.0 }
}

fn trim(points: &mut Vec<Point>, slope: f64) {
    let off = |point: &Point| point.1 - slope * point.0;
    points.sort_by(|a, b| off(a).total_cmp(&off(b)));
    let cut = points.len() / TRIMMED;
    points.truncate(points.len() - cut);
    points.drain(..cut);
}

fn level(points: &[Point], slope: f64) -> f64 {
    let (x, y) = means(points);
    y - slope * x
}

fn means(points: &[Point]) -> Point {
    let count = points.len() as f64;
    let sum = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / count;
    (sum(|point| point.0), sum(|point| point.1))
}

/// Marsaglia's xorshift: the same draws each time.
struct Random(u64);

impl Random {
    fn draw<T: Clone>(&mut self, from: &[T]) -> Vec<T> {
        from.iter()
            .map(|_| from[self.below(from.len())].clone())
            .collect()
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
