//! How a kernel with a hand-written gradient becomes one node of Burn's autodiff graph on the Flex (CPU) backend.
//!
//! A [`Fused`] operation sees plain slices. [`apply`] runs it on tensors that live on Flex; under autodiff its
//! [`Fused::backward`] takes the place of the many small nodes that the same arithmetic costs when composed.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
use burn::tensor::{Device, Tensor, TensorData};
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};

type FlexTensor = FloatTensor<Flex>;

/// A contiguous input of a fused operation.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// Row-major elements.
    pub values: &'a [f32],
    /// Sizes of the dimensions.
    pub shape: &'a [usize],
}

/// What a forward pass leaves for the backward pass beside its inputs.
pub type Kept = Vec<Vec<f32>>;

/// An operation on slices with its gradient.
pub trait Fused: Debug + Send + Sync {
    /// Output elements and shape; pushes onto `kept` (if given) what the backward pass wants to reuse.
    fn forward(&self, inputs: &[Host<'_>], kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>);

    /// Gradient of every input, in order, each as long as its input; `wanted[i]` false allows an empty one.
    fn backward(&self, inputs: &[Host<'_>], kept: &Kept, grad: &[f32], wanted: &[bool]) -> Vec<Vec<f32>>;
}

/// Shared handle to an operation.
pub type Operation = Arc<dyn Fused>;

/// The extension of Burn's backends by fused operations of one to five inputs.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    /// One input.
    fn fused1(a: FloatTensor<Self>, op: Operation) -> FloatTensor<Self>;
    /// Two inputs.
    fn fused2(a: FloatTensor<Self>, b: FloatTensor<Self>, op: Operation) -> FloatTensor<Self>;
    /// Three inputs.
    fn fused3(a: FloatTensor<Self>, b: FloatTensor<Self>, c: FloatTensor<Self>, op: Operation) -> FloatTensor<Self>;
    /// Four inputs.
    fn fused4(a: FloatTensor<Self>, b: FloatTensor<Self>, c: FloatTensor<Self>, d: FloatTensor<Self>, op: Operation) -> FloatTensor<Self>;
    /// Five inputs.
    fn fused5(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        e: FloatTensor<Self>,
        op: Operation,
    ) -> FloatTensor<Self>;
}

/// Stamps out the five arities on Flex and on autodiff over Flex.
macro_rules! arities {
    ($($name:ident($($input:ident),+);)+) => {
        impl FusedOps for Flex {
            $(fn $name($($input: FlexTensor,)+ op: Operation) -> FlexTensor {
                run(&[$($input.to_contiguous()),+], &op, None)
            })+
        }

        impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C> {
            $(fn $name($($input: FloatTensor<Self>,)+ op: Operation) -> FloatTensor<Self> {
                let nodes = [$($input.node()),+];
                track::<_, C>(nodes, [$($input.into_primitive().to_contiguous()),+], op)
            })+
        }
    };
}

arities! {
    fused1(a);
    fused2(a, b);
    fused3(a, b, c);
    fused4(a, b, c, d);
    fused5(a, b, c, d, e);
}

thread_local! {
    static COMPOSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether fused operations run on `device`: the Flex backend, with or without autodiff.
pub fn available(device: &Device) -> bool {
    !COMPOSED.get() && device.clone().without_autodiff() == Device::flex()
}

/// Runs `f` with every operation in its composed form on this thread: the oracle of the fused ones.
pub fn composed<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            COMPOSED.set(self.0);
        }
    }
    let _restore = Restore(COMPOSED.replace(true));
    f()
}

/// A stand-in for an input that an operation does not have.
pub fn absent(device: &Device) -> Tensor<1> {
    Tensor::zeros([1], &device.clone().without_autodiff())
}

/// Runs a fused operation on Flex tensors of any ranks; the output has rank `D`.
macro_rules! apply {
    ($op:expr; $a:expr) => {
        $crate::model::ops::fused::call!(fused1; $op; $a)
    };
    ($op:expr; $a:expr, $b:expr) => {
        $crate::model::ops::fused::call!(fused2; $op; $a, $b)
    };
    ($op:expr; $a:expr, $b:expr, $c:expr) => {
        $crate::model::ops::fused::call!(fused3; $op; $a, $b, $c)
    };
    ($op:expr; $a:expr, $b:expr, $c:expr, $d:expr) => {
        $crate::model::ops::fused::call!(fused4; $op; $a, $b, $c, $d)
    };
    ($op:expr; $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        $crate::model::ops::fused::call!(fused5; $op; $a, $b, $c, $d, $e)
    };
}

macro_rules! call {
    ($name:ident; $op:expr; $($input:expr),+) => {
        burn::tensor::Tensor::from_dispatch(<burn::backend::Dispatch as $crate::model::ops::fused::FusedOps>::$name(
            $($input.into_dispatch(),)+
            std::sync::Arc::new($op),
        ))
    };
}
pub(crate) use {apply, call};

#[derive(Clone, Debug)]
struct State<const N: usize> {
    inputs: [FlexTensor; N],
    op: Operation,
    kept: Arc<Kept>,
}

#[derive(Debug)]
struct Step;

impl<const N: usize> Backward<Flex, N> for Step {
    type State = State<N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let State { inputs, op, kept } = ops.state;
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let shapes = inputs.each_ref().map(|t| t.layout().shape().to_vec());
        let hosts: Vec<Host<'_>> = inputs.iter().zip(&shapes).map(|(t, shape)| Host { values: slice(t), shape }).collect();
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let results = op.backward(&hosts, &kept, slice(&grad), &wanted);
        debug_assert_eq!(results.len(), N, "one gradient for each input of {op:?}");
        for ((parent, values), shape) in ops.parents.into_iter().zip(results).zip(shapes) {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, tensor(values, shape));
            }
        }
    }
}

fn track<const N: usize, C: CheckpointStrategy>(
    nodes: [NodeGuard; N],
    inputs: [FlexTensor; N],
    op: Operation,
) -> FloatTensor<Autodiff<Flex, C>> {
    match Step.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let mut kept = Kept::new();
            let output = run(&inputs, &op, Some(&mut kept));
            prep.finish(State { inputs, op, kept: Arc::new(kept) }, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(run(&inputs, &op, None)),
    }
}

fn run(inputs: &[FlexTensor], op: &Operation, kept: Option<&mut Kept>) -> FlexTensor {
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.layout().shape().to_vec()).collect();
    let hosts: Vec<Host<'_>> = inputs.iter().zip(&shapes).map(|(t, shape)| Host { values: slice(t), shape }).collect();
    let (values, shape) = op.forward(&hosts, kept);
    tensor(values, shape)
}

fn slice(t: &FlexTensor) -> &[f32] {
    t.as_slice::<f32>().expect("fused operations work on contiguous f32 tensors")
}

fn tensor(values: Vec<f32>, shape: Vec<usize>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
