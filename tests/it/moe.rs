//! Routers and experts against golden values, against a loop over rows, and against what must hold of any of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::Param;
use burn::nn::LayerNorm;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use omniscribe::kernel::activation::Activation;
use omniscribe::kernel::gemm::Precision;
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::config::MemoryWeighting;
use omniscribe::model::feed_forward::Dense;
use omniscribe::model::init::Init;
use omniscribe::model::lengths::Lengths;
use omniscribe::model::moe::balance::{RouterLoss, router_loss};
use omniscribe::model::moe::experts::Experts;
use omniscribe::model::moe::memory::{MemorySizes, ProductKeyMemory};
use omniscribe::model::moe::router::{Gate, Router, Routing};
use omniscribe::model::ops::experts::{ExpertWeights, Grouping, expert_feed_forward, expert_feed_forward_naive};
use omniscribe::model::ops::fused;
use omniscribe::model::ops::norm::layer_norm;
use omniscribe::model::pass::Pass;
use serde_json::Value;

use crate::oracle::{self, Golden};

const FILE: &str = "07_moe/moe.safetensors";
const CASES: &str = "07_moe/moe.json";
const HF_FILE: &str = "07_moe/hf_switch.safetensors";
const HF_CASES: &str = "07_moe/hf_switch.json";

/// f32 products of up to 24 terms of order 1 against f64: a few units in the last place of values up to about 3.
const OUTPUT: f64 = 1.5e-6;
/// As above, for logits, probabilities and losses.
const ROUTER: f64 = 1.5e-6;
/// Gradients are up to 11 here and pass through more sums.
const GRADIENT: f64 = 8e-6;
/// A sum of several hundred terms of order 1, in f32.
const TOTAL: f64 = 1e-5;
/// Equal arithmetic in another order: sums of at most 40 terms of order 1.
const REORDERED: f64 = 1e-6;
/// The figures of the toy are printed with 7 decimals or 9 digits, ours are f32 of order 1.
const PRINTED: f64 = 3e-7;

fn pass() -> Pass {
    Pass::inference(Precision::F32)
}

pub(crate) fn device() -> Device {
    Device::flex().autodiff()
}

/// Runs `f` on the fused kernels, then on the composed operations.
pub(crate) fn both_forms(f: impl Fn(&str)) {
    f("fused");
    fused::composed(|| f("composed"));
}

pub(crate) fn values<const D: usize>(t: &Tensor<D>) -> Vec<f64> {
    t.clone().detach().into_data().try_to_vec::<f32>().expect("f32").into_iter().map(f64::from).collect()
}

/// The gradient of `t`; zeros where nothing reached it.
pub(crate) fn gradient<const D: usize>(t: &Tensor<D>, gradients: &Gradients) -> Vec<f64> {
    t.grad(gradients).map_or_else(|| vec![0.0; t.dims().iter().product()], |g| values(&g))
}

pub(crate) fn tensor<const D: usize>(values: &[f64], shape: [usize; D]) -> Tensor<D> {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

pub(crate) fn param<const D: usize>(values: &[f64], shape: [usize; D]) -> Param<Tensor<D>> {
    Param::from_tensor(tensor(values, shape))
}

pub(crate) fn random(rng: &mut SplitMix, count: usize, scale: f64) -> Vec<f64> {
    (0..count).map(|_| f64::from(rng.next_normal()) * scale).collect()
}

/// `[.., out, in]` of the golden files to our `[.., in, out]`.
fn swap_last(g: &Golden) -> Vec<f64> {
    let [.., rows, columns] = g.shape[..] else { panic!("two dimensions at least, not {:?}", g.shape) };
    let swap = |m: &[f64]| (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c)).map(|i| m[i]).collect::<Vec<_>>();
    g.values.chunks_exact(rows * columns).flat_map(swap).collect()
}

/// What a case of the golden files is about.
enum Kind {
    /// One mixture of experts.
    Switch,
    /// Several with norms and residuals between.
    Stack,
    /// Several experts per step, weighted by sigmoids.
    Sigma,
    /// A product-key memory.
    Memory,
}

/// One case: its line of the index and its tensors.
struct Case<'a> {
    name: &'a str,
    json: &'a Value,
    tensors: &'a BTreeMap<String, Golden>,
}

impl<'a> Case<'a> {
    fn list(json: &'a Value, tensors: &'a BTreeMap<String, Golden>) -> Vec<Self> {
        let cases = json.as_array().expect("a list of cases");
        cases.iter().map(|json| Self { name: json["name"].as_str().expect("a name"), json, tensors }).collect()
    }

    /// By the fields of the case; an unknown kind is a failure, so that a new one is not passed over.
    fn kind(&self) -> Kind {
        let has = |key: &str| self.json.get(key).is_some();
        match () {
            () if has("layers") && has("shared_router") => Kind::Stack,
            () if has("capacity") && has("experts") => Kind::Switch,
            () if has("group") && has("k") => Kind::Sigma,
            () if has("n_subkeys") => Kind::Memory,
            () => panic!("{}: a kind of case this test does not know: {}", self.name, self.json),
        }
    }

    fn get(&self, what: &str) -> Option<&'a Golden> {
        self.tensors.get(&format!("{}.{what}", self.name))
    }

    fn golden(&self, what: &str) -> &'a Golden {
        self.get(what).unwrap_or_else(|| panic!("no {}.{what}", self.name))
    }

    fn number(&self, key: &str) -> f64 {
        self.json[key].as_f64().unwrap_or_else(|| panic!("{}: no {key}", self.name))
    }

    fn count(&self, key: &str) -> usize {
        self.json[key].as_u64().unwrap_or_else(|| panic!("{}: no {key}", self.name)) as usize
    }

    fn activation(&self) -> Activation {
        match self.json["act"].as_str() {
            Some("relu") => Activation::Relu,
            Some("silu") => Activation::Silu,
            Some("gelu") => Activation::Gelu,
            other => panic!("{}: activation {other:?}", self.name),
        }
    }

    /// Every row an utterance of one step, or of none where it is masked: masks need not be prefixes.
    fn lengths(&self) -> Lengths {
        Lengths::new(self.golden("mask").indices(), 1)
    }

    fn router(&self, weight: &str, bias: &str) -> Router {
        let weight = self.golden(weight);
        let bias = self.get(bias).map(|b| param(&b.values, [b.values.len()]));
        router(&swap_last(weight), weight.shape[1], weight.shape[0], bias)
    }

    fn norm(&self, layer: usize) -> LayerNorm {
        let golden = |name: &str| self.golden(&format!("layer{layer}.{name}"));
        let width = golden("ln_w").values.len();
        let mut norm = burn::nn::LayerNormConfig::new(width).with_epsilon(1e-5).init(&device());
        norm.gamma = param(&golden("ln_w").values, [width]);
        norm.beta = Some(param(&golden("ln_b").values, [width]));
        norm
    }

    /// The experts at `prefix`; absent biases are 0.
    fn experts(&self, prefix: &str) -> Experts {
        let (w1, w2) = (self.golden(&format!("{prefix}w1")), self.golden(&format!("{prefix}w2")));
        let [experts, d_ff, d_model] = w1.shape[..] else { panic!("{}: w1 {:?}", self.name, w1.shape) };
        assert_eq!(w2.shape, [experts, d_model, d_ff], "{}: w2", self.name);
        let bias = |name: &str, width: usize| {
            let values = self.get(&format!("{prefix}{name}")).map_or_else(|| vec![0.0; experts * width], |b| b.values.clone());
            param(&values, [experts, width])
        };
        Experts {
            up: param(&swap_last(w1), [experts, d_model, d_ff]),
            up_bias: bias("b1", d_ff),
            down: param(&swap_last(w2), [experts, d_ff, d_model]),
            down_bias: bias("b2", d_model),
            languages: None,
        }
    }

    /// Compares the gradients of the experts, biases where the case has them.
    fn check_expert_gradients(&self, what: &str, prefix: &str, experts: &Experts, gradients: &Gradients) {
        let golden = |name: &str| self.get(&format!("grad.{prefix}{name}"));
        let of = |name: &str| golden(name).unwrap_or_else(|| panic!("no {}.grad.{prefix}{name}", self.name));
        let close = |name: &str, ours: &[f64], golden: &[f64]| {
            oracle::assert_close(&format!("{what}: grad {prefix}{name}"), ours, golden, GRADIENT)
        };
        close("w1", &gradient(&experts.up.val(), gradients), &swap_last(of("w1")));
        close("w2", &gradient(&experts.down.val(), gradients), &swap_last(of("w2")));
        for (name, bias) in [("b1", &experts.up_bias), ("b2", &experts.down_bias)] {
            assert_eq!(
                golden(name).is_some(),
                self.get(&format!("{prefix}{name}")).is_some(),
                "{what}: {name} has a gradient if it exists"
            );
            if let Some(golden) = golden(name) {
                close(name, &gradient(&bias.val(), gradients), &golden.values);
            }
        }
    }

    fn check_router_gradients(&self, what: &str, weight: &str, bias: &str, router: &Router, gradients: &Gradients) {
        let ours = gradient(&router.weight.val(), gradients);
        oracle::assert_close(&format!("{what}: grad {weight}"), &ours, &swap_last(self.golden(&format!("grad.{weight}"))), GRADIENT);
        if let Some(b) = &router.bias
            && let Some(golden) = self.get(&format!("grad.{bias}"))
        {
            oracle::assert_close(&format!("{what}: grad {bias}"), &gradient(&b.val(), gradients), &golden.values, GRADIENT);
        }
    }
}

fn router(weight: &[f64], d_model: usize, experts: usize, bias: Option<Param<Tensor<1>>>) -> Router {
    let mut router = Router::new(d_model, experts, false, 0.0, &mut Init::new(&device(), 0));
    router.weight = param(weight, [d_model, experts]);
    router.bias = bias;
    router
}

fn chosen(routing: &Routing) -> Vec<Option<usize>> {
    routing.choices.to_vec()
}

/// One mixture of experts of the golden files.
///
/// The product has no capacity: every live step reaches its expert. Of the cases with one, only "a dropped token gives 0" is therefore
/// out of scope. The rest follows: rows that are not dropped are equal, and with a probe of 0 on the dropped rows so are the total and
/// every gradient, since f and P are taken before anything is dropped. Dropped rows must get what their expert gives.
fn check_switch(case: &Case<'_>, form: &str) {
    let what = format!("{} {form}", case.name);
    let (x, mask, dropped) = (case.golden("x"), case.golden("mask").indices(), case.golden("dropped").indices());
    let [rows, d_model] = x.shape[..] else { panic!("{what}: x {:?}", x.shape) };
    let lengths = case.lengths();
    let (router, experts) = (case.router("router_w", "router_b"), case.experts(""));
    let input = tensor(&x.values, [rows, d_model]).require_grad();
    let routing = router.route(input.clone(), &lengths, &pass());
    let y = experts.forward(input.clone(), &routing, case.activation(), &pass());
    let RouterLoss { balance, z, load } = router_loss(&routing);

    let index = case.golden("expert_index").indices();
    let golden_choices: Vec<Option<usize>> = index.iter().zip(&mask).map(|(&e, &live)| (live == 1).then_some(e)).collect();
    assert_eq!(chosen(&routing), golden_choices, "{what}: choices");
    let counted = |e| golden_choices.iter().filter(|c| **c == Some(e)).count();
    assert_eq!(load, (0..router.experts()).map(counted).collect::<Vec<_>>(), "{what}: load");
    let live: f64 = mask.iter().sum::<usize>() as f64;
    let fractions: Vec<f64> = load.iter().map(|&n| n as f64 / live).collect();
    oracle::assert_close(&format!("{what}: f"), &fractions, &case.golden("f").values, 1e-12);
    oracle::assert_close(&format!("{what}: logits"), &values(&routing.logits), &case.golden("router_logits").values, ROUTER);
    oracle::assert_close(&format!("{what}: probabilities"), &values(&routing.probs), &case.golden("router_probs").values, ROUTER);
    let gates: Vec<f64> = values(&routing.weights).iter().zip(&mask).map(|(g, &m)| g * m as f64).collect();
    let golden_gates: Vec<f64> = case.golden("gate").values.iter().zip(&mask).map(|(g, &m)| g * m as f64).collect();
    oracle::assert_close(&format!("{what}: gates of live rows"), &gates, &golden_gates, ROUTER);
    oracle::assert_close(&format!("{what}: balance"), &values(&balance), &[case.number("aux_loss_alpha1")], ROUTER);
    oracle::assert_close(&format!("{what}: z"), &values(&z), &[case.number("z_loss")], ROUTER * case.number("z_loss").max(1.0));

    let ours = values(&y);
    let mut probe = case.golden("probe_v").values.clone();
    let naive = expert_feed_forward_naive(input.clone().detach(), experts.weights(), &routing.choices, 1, case.activation());
    let uncapped = values(&(naive * routing.weights.clone().detach()));
    let golden_y = &case.golden("y").values;
    let mut over_capacity = 0;
    for row in 0..rows {
        let at = row * d_model..(row + 1) * d_model;
        if mask[row] == 1 && dropped[row] == 1 {
            over_capacity += 1;
            probe[at.clone()].fill(0.0);
            assert!(golden_y[at.clone()].iter().all(|v| *v == 0.0), "{what}: the golden output drops row {row}");
            assert!(ours[at.clone()].iter().any(|v| v.abs() > 1e-3), "{what}: the product drops nothing, row {row}");
            oracle::assert_close(&format!("{what}: y row {row}, over the capacity"), &ours[at.clone()], &uncapped[at], OUTPUT);
        } else {
            oracle::assert_close(&format!("{what}: y row {row}"), &ours[at.clone()], &golden_y[at], OUTPUT);
        }
    }
    assert_eq!(over_capacity > 0, !case.json["capacity"].is_null(), "{what}: rows are dropped where there is a capacity");

    let total = (y * tensor(&probe, [rows, d_model])).sum() + balance.mul_scalar(case.number("alpha")) + z.mul_scalar(case.number("beta"));
    oracle::assert_close(&format!("{what}: total"), &values(&total), &[case.number("total")], TOTAL);
    let gradients = total.backward();
    oracle::assert_close(&format!("{what}: grad x"), &gradient(&input, &gradients), &case.golden("grad.x").values, GRADIENT);
    case.check_router_gradients(&what, "router_w", "router_b", &router, &gradients);
    case.check_expert_gradients(&what, "", &experts, &gradients);
}

/// Layers of experts with a norm before and a residual around each; all with one router, or each with its own.
fn check_stack(case: &Case<'_>, form: &str) {
    let what = format!("{} {form}", case.name);
    let (layers, shared) = (case.count("layers"), case.json["shared_router"].as_bool().expect("shared_router"));
    let x = case.golden("x");
    let [rows, d_model] = x.shape[..] else { panic!("{what}: x {:?}", x.shape) };
    let lengths = case.lengths();
    assert_eq!(case.number("ln_eps"), 1e-5, "{what}: the epsilon of every norm of the product");
    let norms: Vec<LayerNorm> = (0..layers).map(|i| case.norm(i)).collect();
    let routers: Vec<Router> =
        (0..if shared { 1 } else { layers }).map(|i| case.router(&format!("router_w{i}"), &format!("router_b{i}"))).collect();
    let experts: Vec<Experts> = (0..layers).map(|i| case.experts(&format!("layer{i}."))).collect();
    let input = tensor(&x.values, [rows, d_model]).require_grad();
    let (mut h, mut loss) = (input.clone(), None::<Tensor<1>>);
    let (mut balances, mut zs) = (Vec::new(), Vec::new());
    let index = case.golden("expert_index").indices();
    let mask = case.golden("mask").indices();
    let outputs = &case.golden("layer_outputs").values;
    for layer in 0..layers {
        let normed = layer_norm(h.clone().reshape([rows, 1, d_model]), &norms[layer]).reshape([rows, d_model]);
        let routing = routers[layer % routers.len()].route(normed.clone(), &lengths, &pass());
        let golden: Vec<Option<usize>> = (0..rows).map(|r| (mask[r] == 1).then_some(index[layer * rows + r])).collect();
        assert_eq!(chosen(&routing), golden, "{what}: choices of layer {layer}");
        h = h + experts[layer].forward(normed, &routing, case.activation(), &pass());
        let golden = &outputs[layer * rows * d_model..][..rows * d_model];
        oracle::assert_close(&format!("{what}: output of layer {layer}"), &values(&h), golden, OUTPUT);
        let RouterLoss { balance, z, .. } = router_loss(&routing);
        balances.extend(values(&balance));
        zs.extend(values(&z));
        let term = balance.mul_scalar(case.number("alpha")) + z.mul_scalar(case.number("beta"));
        loss = Some(match loss {
            Some(sum) => sum + term,
            None => term,
        });
    }
    oracle::assert_close(&format!("{what}: out"), &values(&h), &case.golden("out").values, OUTPUT);
    oracle::assert_close(&format!("{what}: balance"), &balances, &case.golden("aux_per_layer_alpha1").values, ROUTER);
    oracle::assert_close(&format!("{what}: z"), &zs, &case.golden("z_per_layer").values, ROUTER * 4.0);
    let total = (h * tensor(&case.golden("probe_v").values, [rows, d_model])).sum() + loss.expect("a layer");
    oracle::assert_close(&format!("{what}: total"), &values(&total), &[case.number("total")], TOTAL);
    let gradients = total.backward();
    oracle::assert_close(&format!("{what}: grad x"), &gradient(&input, &gradients), &case.golden("grad.x").values, GRADIENT);
    for (i, router) in routers.iter().enumerate() {
        case.check_router_gradients(&what, &format!("router_w{i}"), &format!("router_b{i}"), router, &gradients);
    }
    for layer in 0..layers {
        case.check_expert_gradients(&what, &format!("layer{layer}."), &experts[layer], &gradients);
        let beta = norms[layer].beta.as_ref().expect("a shift");
        for (name, p) in [("ln_w", &norms[layer].gamma), ("ln_b", beta)] {
            let golden = &case.golden(&format!("grad.layer{layer}.{name}")).values;
            oracle::assert_close(&format!("{what}: grad layer{layer}.{name}"), &gradient(&p.val(), &gradients), golden, GRADIENT);
        }
    }
}

/// Several experts per step, weighted by sigmoids, with the entropy of the mean distribution.
fn check_sigma(case: &Case<'_>, form: &str) {
    let what = format!("{} {form}", case.name);
    let x = case.golden("x");
    let [rows, d_model] = x.shape[..] else { panic!("{what}: x {:?}", x.shape) };
    let k = case.count("k");
    let router = case.router("W3", "no_bias").with_gate(Gate::Sigmoid { top_k: k, dropout: 0.5 });
    let experts = case.experts("");
    let input = tensor(&x.values, [rows, d_model]).require_grad();
    let routing = router.route(input.clone(), &Lengths::full(rows, 1), &pass());
    let golden =
        Grouping::new(&case.golden("topk_index_desc").indices().into_iter().map(Some).collect::<Vec<_>>(), case.count("experts"), k);
    assert_eq!(*routing.grouping, golden, "{what}: choices");
    let index = case.golden("topk_index_desc").indices();
    let scores = &case.golden("scores").values;
    let gates: Vec<f64> = index.iter().enumerate().map(|(slot, e)| scores[slot / k * case.count("experts") + e]).collect();
    oracle::assert_close(&format!("{what}: gates"), &values(&routing.weights), &gates, ROUTER);
    let y = experts.forward(input.clone(), &routing, Activation::Relu, &pass());
    oracle::assert_close(&format!("{what}: y"), &values(&y), &case.golden("y").values, OUTPUT);
    let balance = router.loss(&routing).balance;
    oracle::assert_close(&format!("{what}: balance"), &values(&balance), &[case.number("balance_loss")], ROUTER);
    let total = (y * tensor(&case.golden("probe_v").values, [rows, d_model])).sum() + balance.mul_scalar(case.number("gamma"));
    oracle::assert_close(&format!("{what}: total"), &values(&total), &[case.number("total")], TOTAL);
    let gradients = total.backward();
    oracle::assert_close(&format!("{what}: grad x"), &gradient(&input, &gradients), &case.golden("grad.x").values, GRADIENT);
    case.check_router_gradients(&what, "W3", "no_bias", &router, &gradients);
    case.check_expert_gradients(&what, "", &experts, &gradients);
}

/// A product-key memory; ours holds the keys transposed and the queries of all heads in one matrix.
fn check_memory(case: &Case<'_>, form: &str) {
    let what = format!("{} {form}", case.name);
    let x = case.golden("x");
    let [rows, d_model] = x.shape[..] else { panic!("{what}: x {:?}", x.shape) };
    let sizes = MemorySizes {
        subkeys: case.count("n_subkeys"),
        query: case.count("query_dim"),
        heads: case.count("heads"),
        top_k: case.count("k"),
    };
    let MemorySizes { subkeys, query, heads, top_k } = sizes;
    let mut memory = ProductKeyMemory::new(d_model, sizes, MemoryWeighting::Softmax, &mut Init::new(&device(), 0));
    // [heads, query, d_model] read as [heads * query, d_model]
    let flat = |g: &Golden| swap_last(&Golden { shape: vec![heads * query, d_model], values: g.values.clone() });
    memory.query = param(&flat(case.golden("Wq")), [d_model, heads * query]);
    memory.query_bias = param(&case.golden("bq").values, [heads * query]);
    memory.first = param(&swap_last(case.golden("C1")), [heads, query / 2, subkeys]);
    memory.second = param(&swap_last(case.golden("C2")), [heads, query / 2, subkeys]);
    memory.values = param(&case.golden("V").values, [subkeys * subkeys, d_model]);
    let input = tensor(&x.values, [rows, d_model]).require_grad();
    let reading = memory.read(input.clone());
    // Ours has heads first, the golden files rows.
    let slots = |h, r| (0..top_k).map(move |k| (r * heads + h) * top_k + k);
    let order: Vec<usize> = (0..heads).flat_map(|h| (0..rows).flat_map(move |r| slots(h, r))).collect();
    let golden_rows = case.golden("value_rows_desc").indices();
    assert_eq!(reading.rows, order.iter().map(|&i| golden_rows[i]).collect::<Vec<_>>(), "{what}: rows read");
    let golden_weights: Vec<f64> = order.iter().map(|&i| case.golden("weights").values[i]).collect();
    oracle::assert_close(&format!("{what}: weights"), &values(&reading.weights), &golden_weights, ROUTER);
    let y = memory.forward(input.clone().reshape([1, rows, d_model])).reshape([rows, d_model]);
    oracle::assert_close(&format!("{what}: y"), &values(&y), &case.golden("y").values, OUTPUT);
    let total = (y * tensor(&case.golden("probe_v").values, [rows, d_model])).sum();
    oracle::assert_close(&format!("{what}: total"), &values(&total), &[case.number("total")], TOTAL);
    let gradients = total.backward();
    let close =
        |name: &str, ours: Vec<f64>, golden: Vec<f64>| oracle::assert_close(&format!("{what}: grad {name}"), &ours, &golden, GRADIENT);
    let golden = |name: &str| case.golden(&format!("grad.{name}"));
    close("x", gradient(&input, &gradients), golden("x").values.clone());
    close("Wq", gradient(&memory.query.val(), &gradients), flat(golden("Wq")));
    close("bq", gradient(&memory.query_bias.val(), &gradients), golden("bq").values.clone());
    close("C1", gradient(&memory.first.val(), &gradients), swap_last(golden("C1")));
    close("C2", gradient(&memory.second.val(), &gradients), swap_last(golden("C2")));
    close("V", gradient(&memory.values.val(), &gradients), golden("V").values.clone());
}

#[test]
fn oracle_every_kind_of_router() {
    let (json, tensors) = (oracle::json(CASES), oracle::tensors(FILE));
    let cases = Case::list(&json, &tensors);
    let (mut switch, mut stacks, mut sigma, mut memories) = (0, 0, 0, 0);
    for case in &cases {
        match case.kind() {
            Kind::Switch => {
                both_forms(|form| check_switch(case, form));
                switch += 1;
            }
            Kind::Stack => {
                both_forms(|form| check_stack(case, form));
                stacks += 1;
            }
            Kind::Sigma => {
                both_forms(|form| check_sigma(case, form));
                sigma += 1;
            }
            Kind::Memory => {
                both_forms(|form| check_memory(case, form));
                memories += 1;
            }
        }
    }
    assert!(switch > 0 && stacks > 0 && sigma > 0 && memories > 0, "cases of every kind");
}

/// The shared router of a stack gets the sum of what separate routers with the same weights get, one for each layer.
#[test]
fn oracle_gradient_of_a_shared_router_is_the_sum_over_layers() {
    let (json, tensors) = (oracle::json(CASES), oracle::tensors(FILE));
    let cases = Case::list(&json, &tensors);
    let shared: Vec<_> = cases.iter().filter(|c| c.json["shared_router"] == true).collect();
    assert!(!shared.is_empty(), "a case with a shared router");
    for case in shared {
        let x = case.golden("x");
        let (rows, d_model, layers) = (x.shape[0], x.shape[1], case.count("layers"));
        let routers: Vec<Router> = (0..layers).map(|_| case.router("router_w0", "router_b0")).collect();
        let mut h = tensor(&x.values, [rows, d_model]);
        let mut loss = Tensor::<1>::zeros([1], &device());
        for (layer, router) in routers.iter().enumerate() {
            let normed = layer_norm(h.clone().reshape([rows, 1, d_model]), &case.norm(layer)).reshape([rows, d_model]);
            let routing = router.route(normed.clone(), &case.lengths(), &pass());
            h = h + case.experts(&format!("layer{layer}.")).forward(normed, &routing, case.activation(), &pass());
            let RouterLoss { balance, z, .. } = router_loss(&routing);
            loss = loss + balance.mul_scalar(case.number("alpha")) + z.mul_scalar(case.number("beta"));
        }
        let gradients = ((h * tensor(&case.golden("probe_v").values, [rows, d_model])).sum() + loss).backward();
        let mut sum = vec![0.0; routers[0].weight.dims().iter().product()];
        for (layer, router) in routers.iter().enumerate() {
            let part = gradient(&router.weight.val(), &gradients);
            assert!(part.iter().any(|v| v.abs() > 1e-2), "{}: layer {layer} contributes", case.name);
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
        oracle::assert_close(&format!("{}: sum over layers", case.name), &sum, &swap_last(case.golden("grad.router_w0")), GRADIENT);
    }
}

/// The third-party layer. Its balance is a mean over sequences and it drops per sequence; ours is over the batch and drops nothing. So
/// the balance is taken for each sequence by itself, and dropped rows are treated as in [`check_switch`].
fn check_hf(case: &Case<'_>, form: &str) {
    let what = format!("{} {form}", case.name);
    let x = case.golden("x");
    let [batch, steps, d_model] = x.shape[..] else { panic!("{what}: x {:?}", x.shape) };
    let rows = batch * steps;
    let (router, experts) = (case.router("router_w", "router_b"), case.experts(""));
    let input = tensor(&x.values, [rows, d_model]).require_grad();
    let routing = router.route(input.clone(), &Lengths::full(batch, steps), &pass());
    let index = case.golden("expert_index").indices();
    assert_eq!(chosen(&routing), index.iter().map(|&e| Some(e)).collect::<Vec<_>>(), "{what}: choices");
    oracle::assert_close(&format!("{what}: logits"), &values(&routing.logits), &case.golden("router_logits").values, ROUTER);
    oracle::assert_close(&format!("{what}: gates"), &values(&routing.weights), &case.golden("gate").values, ROUTER);
    let z = router_loss(&routing).z;
    oracle::assert_close(&format!("{what}: z"), &values(&z), &[case.number("z_loss")], ROUTER * 4.0);
    let balances = (0..batch).map(|b| {
        let sequence = input.clone().slice(b * steps..(b + 1) * steps);
        router_loss(&router.route(sequence, &Lengths::full(1, steps), &pass())).balance
    });
    let balance = balances.reduce(|a, b| a + b).expect("a sequence").div_scalar(batch as f64);
    oracle::assert_close(&format!("{what}: balance"), &values(&balance), &[case.number("load_balancing_loss")], ROUTER);

    let y = experts.forward(input.clone(), &routing, Activation::Relu, &pass());
    let (ours, golden) = (values(&y), &case.golden("y").values);
    let kept = case.golden("dispatch_mask_after_capacity").indices();
    let mut probe = case.golden("probe_v").values.clone();
    let mut over_capacity = 0;
    for row in 0..rows {
        let at = row * d_model..(row + 1) * d_model;
        if kept[row * router.experts() + index[row]] == 1 {
            oracle::assert_close(&format!("{what}: y row {row}"), &ours[at.clone()], &golden[at], OUTPUT);
        } else {
            over_capacity += 1;
            probe[at.clone()].fill(0.0);
            assert!(golden[at.clone()].iter().all(|v| *v == 0.0) && ours[at].iter().any(|v| v.abs() > 1e-3), "{what}: row {row}");
        }
    }
    assert_eq!(over_capacity, case.count("tokens_dropped"), "{what}: dropped rows");
    // The weights of the auxiliary losses are given in the note of the case alone.
    let total = (y * tensor(&probe, [rows, d_model])).sum() + balance.mul_scalar(0.01) + z.mul_scalar(0.001);
    let gradients = total.backward();
    oracle::assert_close(&format!("{what}: grad x"), &gradient(&input, &gradients), &case.golden("grad.x").values, GRADIENT);
    case.check_router_gradients(&what, "router_w", "router_b", &router, &gradients);
    case.check_expert_gradients(&what, "", &experts, &gradients);
}

#[test]
fn oracle_third_party_switch() {
    let (json, tensors) = (oracle::json(HF_CASES), oracle::tensors(HF_FILE));
    let cases = Case::list(&json, &tensors);
    assert!(cases.iter().any(|c| c.count("tokens_dropped") == 0), "a case without a full expert");
    for case in &cases {
        both_forms(|form| check_hf(case, form));
    }
}

/// Two layers, two experts, one router, no norm: figures computed by automatic differentiation and by finite differences elsewhere.
mod toy {
    use super::*;

    const X: [f64; 6] = [1.0, -0.5, 0.2, 0.8, -1.0, 0.3];
    const ROUTER: [f64; 4] = [0.6, -0.4, 0.1, 0.5];
    /// Up, its bias, down, its bias of two experts; matrices are `[experts, in, out]`.
    type Weights = ([f64; 8], [f64; 4], [f64; 8], [f64; 4]);
    const EXPERTS: [Weights; 2] = [
        (
            [0.5, -0.2, 0.3, 0.4, -0.4, 0.6, 0.2, 0.1],
            [0.1, 0.0, 0.0, 0.2],
            [0.2, 0.1, -0.3, 0.5, 0.7, -0.1, 0.1, 0.3],
            [0.0, 0.1, 0.05, 0.0],
        ),
        (
            [0.1, 0.9, -0.5, 0.2, 0.8, -0.3, 0.5, 0.7],
            [0.0, 0.1, 0.2, 0.0],
            [0.4, 0.2, 0.3, -0.6, -0.2, 0.3, 0.6, 0.1],
            [0.1, 0.1, 0.0, -0.1],
        ),
    ];

    struct Run {
        out: Tensor<2>,
        choices: Vec<Vec<Option<usize>>>,
        balance: Vec<Tensor<1>>,
    }

    fn forward(routers: [&Router; 2]) -> Run {
        let mut run = Run { out: tensor(&X, [3, 2]), choices: Vec::new(), balance: Vec::new() };
        for (router, (up, up_bias, down, down_bias)) in routers.iter().zip(EXPERTS) {
            let experts = Experts {
                up: param(&up, [2, 2, 2]),
                up_bias: param(&up_bias, [2, 2]),
                down: param(&down, [2, 2, 2]),
                down_bias: param(&down_bias, [2, 2]),
                languages: None,
            };
            let routing = router.route(run.out.clone(), &Lengths::full(1, 3), &pass());
            run.out = run.out.clone() + experts.forward(run.out, &routing, Activation::Relu, &pass());
            run.choices.push(chosen(&routing));
            run.balance.push(router_loss(&routing).balance);
        }
        run
    }

    fn task(run: &Run) -> Tensor<1> {
        run.out.clone().square().sum().mul_scalar(0.5)
    }

    #[test]
    fn oracle_figures_of_the_toy() {
        both_forms(|form| {
            let close = |what: &str, ours: &[f64], golden: &[f64]| oracle::assert_close(&format!("{form} {what}"), ours, golden, PRINTED);
            let shared = router(&ROUTER, 2, 2, None);
            let run = forward([&shared, &shared]);
            close("out", &values(&run.out), &[1.46784551, -0.721271564, 0.350051401, 0.966447837, -0.551954539, 0.223700178]);
            assert_eq!(run.choices, vec![vec![Some(0), Some(1), Some(1)]; 2]);
            close("balance", &run.balance.iter().flat_map(values).collect::<Vec<_>>(), &[1.00342844, 0.986477305]);
            close("task", &values(&task(&run)), &[2.04302804]);
            let of = |r: &Router, loss: &Tensor<1>| gradient(&r.weight.val(), &loss.backward());
            close("shared", &of(&shared, &task(&run)), &[0.1351908, -0.1351908, -0.1517107, 0.1517107]);
            let run = forward([&shared, &shared]);
            let balance = (run.balance[0].clone() + run.balance[1].clone()).mul_scalar(0.5);
            close("mean balance", &of(&shared, &balance), &[-0.017984, 0.017984, -0.0398259, 0.0398259]);

            let (first, second) = (router(&ROUTER, 2, 2, None), router(&ROUTER, 2, 2, None));
            let gradients = task(&forward([&first, &second])).backward();
            close("layer 0", &gradient(&first.weight.val(), &gradients), &[-0.0255961, 0.0255961, -0.0335471, 0.0335471]);
            close("layer 1", &gradient(&second.weight.val(), &gradients), &[0.160787, -0.160787, -0.1181636, 0.1181636]);
        });
    }
}

/// Random weights for experts of one size.
fn random_experts(rng: &mut SplitMix, experts: usize, d_model: usize, d_ff: usize) -> Experts {
    Experts {
        up: param(&random(rng, experts * d_model * d_ff, 0.4), [experts, d_model, d_ff]),
        up_bias: param(&random(rng, experts * d_ff, 0.3), [experts, d_ff]),
        down: param(&random(rng, experts * d_ff * d_model, 0.4), [experts, d_ff, d_model]),
        down_bias: param(&random(rng, experts * d_model, 0.3), [experts, d_model]),
        languages: None,
    }
}

/// Output and gradients of a dispatch under a random probe; all gradients are 0 where no row is live.
fn dispatch_results(
    experts: &Experts,
    x: &[f64],
    probe: &[f64],
    shape: [usize; 2],
    run: impl FnOnce(Tensor<2>, ExpertWeights) -> Tensor<2>,
) -> Vec<Vec<f64>> {
    let x = tensor(x, shape).require_grad();
    // Keeps the loss in the graph when the composed dispatch touches nothing.
    let anchor = x.clone().sum().mul_scalar(0.0);
    let y = run(x.clone(), experts.weights());
    let width = y.dims();
    let gradients = ((y.clone() * tensor(probe, width)).sum() + anchor).backward();
    vec![
        values(&y),
        gradient(&x, &gradients),
        gradient(&experts.up.val(), &gradients),
        gradient(&experts.up_bias.val(), &gradients),
        gradient(&experts.down.val(), &gradients),
        gradient(&experts.down_bias.val(), &gradients),
    ]
}

#[test]
fn fast_dispatch_equals_a_loop_over_rows() {
    let names = ["y", "grad x", "grad up", "grad up bias", "grad down", "grad down bias"];
    for seed in 0..24 {
        let mut rng = SplitMix::new(seed);
        let mut size = |from: usize, to: usize| from + (rng.next_u64() as usize) % (to - from + 1);
        let (rows, experts, top_k, d_model, d_ff) = (size(1, 30), size(1, 7), size(1, 2), size(1, 20), size(1, 40));
        let act = [Activation::Relu, Activation::Silu, Activation::Gelu][size(0, 2)];
        // The last seeds: no live row at all, and every row with one expert.
        let choices: Vec<Option<usize>> = (0..rows * top_k)
            .map(|slot| match seed {
                22 => None,
                23 => Some(experts - 1),
                _ => (size(0, 4) > 0).then(|| (size(0, experts - 1) + slot) % experts),
            })
            .collect();
        let weights = random_experts(&mut rng, experts, d_model, d_ff);
        let (x, probe) = (random(&mut rng, rows * d_model, 1.0), random(&mut rng, rows * top_k * d_model, 1.0));
        let naive = dispatch_results(&weights, &x, &probe, [rows, d_model], |x, w| {
            fused::composed(|| expert_feed_forward_naive(x, w, &choices, top_k, act))
        });
        both_forms(|form| {
            let grouping = Arc::new(Grouping::new(&choices, experts, top_k));
            let fast = dispatch_results(&weights, &x, &probe, [rows, d_model], |x, w| expert_feed_forward(x, w, grouping, act, &pass()));
            for ((name, fast), naive) in names.iter().zip(&fast).zip(&naive) {
                // Gradients of the weights are sums over the rows as well.
                let scale = naive.iter().fold(1.0f64, |m, v| m.max(v.abs()));
                oracle::assert_close(&format!("seed {seed} {form}: {name}"), fast, naive, REORDERED * scale);
            }
        });
    }
}

/// A router and experts of random weights on random rows.
struct Setting {
    x: Tensor<2>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    experts: Experts,
    lengths: Lengths,
}

const ROWS: usize = 24;
const D_MODEL: usize = 10;
const EXPERTS: usize = 4;

impl Setting {
    fn new(seed: u64) -> Self {
        let mut rng = SplitMix::new(seed);
        Self {
            x: tensor(&random(&mut rng, ROWS * D_MODEL, 1.0), [ROWS, D_MODEL]),
            weight: random(&mut rng, D_MODEL * EXPERTS, 0.5),
            bias: random(&mut rng, EXPERTS, 0.3),
            experts: random_experts(&mut rng, EXPERTS, D_MODEL, 18),
            lengths: Lengths::new(vec![8, 5, 8], 8),
        }
    }

    fn router(&self) -> Router {
        router(&self.weight, D_MODEL, EXPERTS, Some(param(&self.bias, [EXPERTS])))
    }

    fn run(&self, router: &Router) -> (Tensor<2>, Routing) {
        let routing = router.route(self.x.clone(), &self.lengths, &pass());
        (self.experts.forward(self.x.clone(), &routing, Activation::Silu, &pass()), routing)
    }
}

#[test]
fn experts_may_be_renumbered_with_the_columns_of_the_router() {
    for (seed, order) in [[2, 0, 3, 1], [3, 2, 1, 0], [1, 2, 3, 0]].into_iter().enumerate() {
        let setting = Setting::new(seed as u64);
        let (y, routing) = setting.run(&setting.router());
        let loss = router_loss(&routing);

        // Expert `i` of the renumbered layer is `order[i]` of the first.
        let columns = |m: &[f64]| m.chunks_exact(EXPERTS).flat_map(|row| order.map(|e| row[e])).collect::<Vec<_>>();
        fn blocks<const D: usize>(p: &Param<Tensor<D>>, order: [usize; EXPERTS]) -> Param<Tensor<D>> {
            let (values, shape) = (values(&p.val()), p.dims());
            let size = values.len() / EXPERTS;
            param(&order.iter().flat_map(|e| values[e * size..(e + 1) * size].to_vec()).collect::<Vec<_>>(), shape)
        }
        let renumbered = Setting {
            weight: columns(&setting.weight),
            bias: columns(&setting.bias),
            experts: Experts {
                up: blocks(&setting.experts.up, order),
                up_bias: blocks(&setting.experts.up_bias, order),
                down: blocks(&setting.experts.down, order),
                down_bias: blocks(&setting.experts.down_bias, order),
                languages: None,
            },
            ..Setting::new(seed as u64)
        };
        let (permuted, permuted_routing) = renumbered.run(&renumbered.router());
        let back: Vec<Option<usize>> = permuted_routing.choices.iter().map(|c| c.map(|e| order[e])).collect();
        assert_eq!(back, chosen(&routing));
        oracle::assert_close(&format!("order {order:?}: y"), &values(&permuted), &values(&y), REORDERED);
        let permuted_loss = router_loss(&permuted_routing);
        assert_eq!(permuted_loss.load, order.map(|e| loss.load[e]));
        oracle::assert_close("balance", &values(&permuted_loss.balance), &values(&loss.balance), REORDERED);
        oracle::assert_close("z", &values(&permuted_loss.z), &values(&loss.z), REORDERED);
    }
}

#[test]
fn one_expert_is_a_dense_feed_forward_to_the_bit() {
    for seed in 0..3 {
        let mut rng = SplitMix::new(seed);
        let experts = random_experts(&mut rng, 1, D_MODEL, 18);
        let x = tensor(&random(&mut rng, ROWS * D_MODEL, 1.0), [ROWS, D_MODEL]);
        let router = router(&random(&mut rng, D_MODEL, 1.0), D_MODEL, 1, None);
        let routing = router.route(x.clone(), &Lengths::full(3, 8), &pass());
        let y = experts.forward(x.clone(), &routing, Activation::Gelu, &pass());
        let flat = |p: &Param<Tensor<2>>, width: usize| param(&values(&p.val()), [width]);
        let dense = Dense {
            up: param(&values(&experts.up.val()), [D_MODEL, 18]),
            up_bias: flat(&experts.up_bias, 18),
            down: param(&values(&experts.down.val()), [18, D_MODEL]),
            down_bias: flat(&experts.down_bias, D_MODEL),
            languages: None,
        };
        let golden = dense.forward(x.reshape([3, 8, D_MODEL]), Activation::Gelu, &pass());
        assert_eq!(values(&y), values(&golden), "seed {seed}");
        assert_eq!(values(&router_loss(&routing).balance), [1.0], "one expert is always balanced");
        let gradients = y.sum().backward();
        assert!(gradient(&router.weight.val(), &gradients).iter().all(|g| *g == 0.0), "nothing to choose, nothing to learn");
    }
}

#[test]
fn equal_probabilities_are_balanced() {
    for experts in [1, 2, 3, 4, 5, 8, 16] {
        for lengths in [Lengths::full(4, 8), Lengths::new(vec![8, 3, 0, 6], 8)] {
            let x = tensor(&random(&mut SplitMix::new(experts as u64), 32 * D_MODEL, 1.0), [32, D_MODEL]);
            let router = router(&vec![0.0; D_MODEL * experts], D_MODEL, experts, None);
            let loss = router_loss(&router.route(x, &lengths, &pass()));
            let balance = values(&loss.balance)[0];
            // Powers of two divide exactly; else the sum of 32 rounded terms is within a few units in the last place.
            let exact = experts.is_power_of_two() && lengths.total().is_power_of_two();
            assert!(if exact { balance == 1.0 } else { (balance - 1.0).abs() < 1e-6 }, "{experts} experts, {lengths:?}: {balance}");
            let z = (experts as f64).ln().powi(2);
            assert!((values(&loss.z)[0] - z).abs() <= 1e-6 * z.max(1.0), "{experts} experts: z {:?}, not {z}", loss.z);
        }
    }
}

#[test]
fn an_expert_nobody_chose_gets_no_gradient() {
    let setting = Setting::new(5);
    let never = 2;
    let mut bias = setting.bias.clone();
    bias[never] = -30.0;
    let router = router(&setting.weight, D_MODEL, EXPERTS, Some(param(&bias, [EXPERTS])));
    both_forms(|form| {
        let (y, routing) = setting.run(&router);
        let loss = router_loss(&routing);
        assert_eq!(loss.load[never], 0);
        let gradients = (y.square().sum() + loss.balance + loss.z).backward();
        fn of<const D: usize>(p: &Param<Tensor<D>>, e: usize, gradients: &Gradients) -> Vec<f64> {
            let all = gradient(&p.val(), gradients);
            let size = all.len() / EXPERTS;
            all[e * size..(e + 1) * size].to_vec()
        }
        for e in 0..EXPERTS {
            let experts = &setting.experts;
            let parts = [
                of(&experts.up, e, &gradients),
                of(&experts.up_bias, e, &gradients),
                of(&experts.down, e, &gradients),
                of(&experts.down_bias, e, &gradients),
            ];
            for (i, part) in parts.iter().enumerate() {
                assert_eq!(part.iter().all(|g| *g == 0.0), loss.load[e] == 0, "{form}: expert {e}, weights {i}, load {:?}", loss.load);
            }
        }
    });
}

#[test]
fn the_router_learns_from_the_task_alone() {
    let setting = Setting::new(6);
    both_forms(|form| {
        let router = setting.router();
        let (y, _) = setting.run(&router);
        let gradients = y.square().sum().backward();
        let weight = gradient(&router.weight.val(), &gradients);
        // Every column: the softmax couples the chosen expert to all others.
        for e in 0..EXPERTS {
            let column: f64 = weight.iter().skip(e).step_by(EXPERTS).map(|g| g.abs()).sum();
            assert!(column > 1e-3, "{form}: column {e}: {column}");
        }
    });
}

#[test]
fn padded_steps_count_in_nothing() {
    let setting = Setting::new(7);
    let router = setting.router();
    let (y, routing) = setting.run(&router);
    let loss = router_loss(&routing);
    let live: Vec<usize> = (0..ROWS).filter(|r| r % 8 < setting.lengths.valid()[r / 8]).collect();
    let rows = |t: &Tensor<2>| {
        let v = values(t);
        live.iter().flat_map(|r| v[r * D_MODEL..(r + 1) * D_MODEL].to_vec()).collect::<Vec<_>>()
    };
    let packed = Setting { x: tensor(&rows(&setting.x), [live.len(), D_MODEL]), lengths: Lengths::full(1, live.len()), ..Setting::new(7) };
    let (alone, alone_routing) = packed.run(&packed.router());
    let alone_loss = router_loss(&alone_routing);
    oracle::assert_close("y", &rows(&y), &values(&alone), REORDERED);
    assert_eq!(loss.load, alone_loss.load);
    oracle::assert_close("balance", &values(&loss.balance), &values(&alone_loss.balance), REORDERED);
    oracle::assert_close("z", &values(&loss.z), &values(&alone_loss.z), REORDERED);
    let dead = values(&y);
    assert!(
        (0..ROWS).filter(|r| !live.contains(r)).all(|r| dead[r * D_MODEL..(r + 1) * D_MODEL].iter().all(|v| *v == 0.0)),
        "padding gets 0"
    );
}

/// The toy of the fact sheet: one step, three experts of one hidden unit, two chosen.
#[test]
fn sigma_figures_of_the_toy() {
    let experts = Experts {
        up: param(&[1.0, 0.5, -1.0, -1.0, 0.2, -0.4], [3, 2, 1]),
        up_bias: param(&[0.0; 3], [3, 1]),
        down: param(&[1.0, 2.0, 0.5, -1.0, 2.0, 0.0], [3, 1, 2]),
        down_bias: param(&[0.0; 6], [3, 2]),
        languages: None,
    };
    let router = router(&[1.0, 0.0, 1.0, 0.0, 1.0, 1.0], 2, 3, None).with_gate(Gate::Sigmoid { top_k: 2, dropout: 0.0 });
    let x = tensor(&[0.5, -1.0], [1, 2]);
    let routing = router.route(x.clone(), &Lengths::full(1, 1), &pass());
    assert_eq!(routing.grouping.load(), [1, 0, 1]);
    oracle::assert_close("gates", &values(&routing.weights), &[0.622459331, 0.377540669], PRINTED);
    oracle::assert_close("y", &values(&experts.forward(x, &routing, Activation::Relu, &pass())), &[0.377540669, 0.0], PRINTED);
    // Rows whose logits are [2, 0, -1] and [0, 1, 0.5]
    let mut spread = router;
    spread.weight = param(&[2.0, 0.0, -1.0, 0.0, 1.0, 0.5], [2, 3]);
    let routing = spread.route(tensor(&[1.0, 0.0, 0.0, 1.0], [2, 2]), &Lengths::full(2, 1), &pass());
    oracle::assert_close("regulariser", &values(&spread.loss(&routing).balance), &[-1.00957665], PRINTED * 10.0);
}

/// Every live step has its experts, all different, however many are excluded; at inference nothing is excluded.
#[test]
fn expert_dropout_leaves_enough() {
    let mut rng = SplitMix::new(11);
    let (rows, d_model, experts, top_k) = (40, 6, 5, 3);
    let x = tensor(&random(&mut rng, rows * d_model, 1.0), [rows, d_model]);
    let weight = random(&mut rng, d_model * experts, 1.0);
    let lengths = Lengths::new(vec![20, 13], 20);
    let route = |dropout: f64, pass: &Pass| {
        router(&weight, d_model, experts, None).with_gate(Gate::Sigmoid { top_k, dropout }).route(x.clone(), &lengths, pass)
    };
    let still = route(0.0, &pass());
    assert_eq!(route(0.999, &pass()).grouping, still.grouping, "inference");
    for dropout in [0.3, 0.999_999] {
        let routing = route(dropout, &Pass::training(Precision::F32, 3));
        assert!(values(&routing.weights).iter().all(|w| w.is_finite() && *w > 0.0));
        let mut chosen = vec![Vec::new(); rows];
        for (e, span) in routing.grouping.offsets.windows(2).enumerate() {
            routing.grouping.order[span[0]..span[1]].iter().for_each(|slot| chosen[slot / top_k].push(e));
        }
        for (row, chosen) in chosen.iter().enumerate() {
            let live = row % 20 < lengths.valid()[row / 20];
            assert_eq!(chosen.len(), if live { top_k } else { 0 }, "row {row}");
            assert!(chosen.is_sorted_by(|a, b| a < b), "row {row}: {chosen:?}");
        }
        if dropout < 0.9 {
            assert_ne!(routing.grouping, still.grouping, "some choice changes");
        } else {
            assert_eq!(routing.grouping, still.grouping, "where all are excluded, the best return");
        }
    }
}

/// Several experts per step: the fast dispatch equals a loop over rows, and padding counts in nothing.
#[test]
fn several_experts_equal_a_loop_over_rows() {
    let mut rng = SplitMix::new(17);
    let (d_model, experts, top_k) = (6, 5, 2);
    let layer = random_experts(&mut rng, experts, d_model, 7);
    let router = router(&random(&mut rng, d_model * experts, 1.0), d_model, experts, None).with_gate(Gate::Sigmoid { top_k, dropout: 0.0 });
    let x = random(&mut rng, 9 * d_model, 1.0);
    let run = |rows: usize, lengths: Lengths, x: &[f64]| {
        let input = tensor(x, [rows, d_model]);
        let routing = router.route(input.clone(), &lengths, &pass());
        (values(&layer.forward(input, &routing, Activation::Silu, &pass())), values(&router.loss(&routing).balance), routing)
    };
    both_forms(|form| {
        let (y, balance, routing) = run(9, Lengths::full(1, 9), &x);
        let mut slots = vec![None; 9 * top_k];
        for (e, span) in routing.grouping.offsets.windows(2).enumerate() {
            routing.grouping.order[span[0]..span[1]].iter().for_each(|&slot| slots[slot] = Some(e));
        }
        let naive = expert_feed_forward_naive(tensor(&x, [9, d_model]), layer.weights(), &slots, top_k, Activation::Silu);
        let naive = (naive * routing.weights.clone()).reshape([9, top_k, d_model]).sum_dim(1);
        oracle::assert_close(&format!("{form}: loop"), &y, &values(&naive), REORDERED);
        let mut padded = x.clone();
        padded.extend(vec![5.0; 3 * d_model]);
        let (in_batch, in_batch_balance, _) = run(12, Lengths::new(vec![9], 12), &padded);
        assert_eq!(in_batch[..9 * d_model], y, "{form}: alone and padded");
        assert!(in_batch[9 * d_model..].iter().all(|v| *v == 0.0), "{form}: padding gives 0");
        oracle::assert_close(&format!("{form}: balance"), &in_batch_balance, &balance, REORDERED);
    });
}
