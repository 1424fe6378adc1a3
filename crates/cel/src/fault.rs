//! What can go wrong while an expression is evaluated.

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// `&&`, `||` and the quantifiers may pass over it.
    #[error("{0}")]
    Failed(String),
    /// Ends the evaluation, whatever stands around it.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
}

impl Fault {
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub fn no_overload() -> Self {
        Self::failed("no such overload")
    }

    pub fn int_overflow() -> Self {
        Self::failed("integer overflow")
    }

    pub fn uint_overflow() -> Self {
        Self::failed("unsigned integer overflow")
    }
}
