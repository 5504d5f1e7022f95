//! What a kernel's io_uring may lack, and what the driver does instead.
//!
//! The floor is Linux 5.19; what came later, or can be switched off, is a [`Feature`]. Each is
//! looked for by itself, so a kernel with back-ported parts, or with a defect in one, keeps the
//! rest. What stands below the floor has no replacement: without it the driver does not start.

use std::fmt;

/// One part of io_uring that the driver can do without.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Feature {
    /// IORING_SETUP_SUBMIT_ALL.
    SubmitAll,
    /// IORING_SETUP_COOP_TASKRUN with IORING_SETUP_TASKRUN_FLAG.
    CoopTaskrun,
    /// IORING_SETUP_SINGLE_ISSUER.
    SingleIssuer,
    /// IORING_SETUP_DEFER_TASKRUN, which needs SINGLE_ISSUER.
    DeferTaskrun,
    /// IORING_FEAT_EXT_ARG.
    ExtArg,
    /// IOSQE_CQE_SKIP_SUCCESS.
    SkipSuccess,
    /// IORING_REGISTER_PBUF_RING.
    BufferRing,
    /// IORING_ACCEPT_MULTISHOT.
    MultishotAccept,
    /// IORING_RECV_MULTISHOT.
    MultishotReceive,
}

impl Feature {
    /// All of them, oldest set-up flag first.
    pub const ALL: [Feature; 9] = [
        Feature::SubmitAll,
        Feature::CoopTaskrun,
        Feature::SingleIssuer,
        Feature::DeferTaskrun,
        Feature::ExtArg,
        Feature::SkipSuccess,
        Feature::BufferRing,
        Feature::MultishotAccept,
        Feature::MultishotReceive,
    ];

    /// Its name in settings and reports.
    pub fn name(self) -> &'static str {
        self.described().0
    }

    /// The first kernel that has it.
    pub fn since(self) -> &'static str {
        self.described().1
    }

    /// What the driver does without it.
    pub fn replacement(self) -> &'static str {
        self.described().2
    }

    fn described(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Feature::SubmitAll => (
                "submit_all",
                "5.18",
                "entries behind a refused one are submitted again",
            ),
            Feature::CoopTaskrun => (
                "coop_taskrun",
                "5.19",
                "the kernel interrupts the worker for completions",
            ),
            Feature::SingleIssuer => ("single_issuer", "6.0", "submissions take a lock"),
            Feature::DeferTaskrun => (
                "defer_taskrun",
                "6.1",
                "completions are posted at any system call",
            ),
            Feature::ExtArg => (
                "ext_arg",
                "5.11",
                "the end of a wait is a timeout operation",
            ),
            Feature::SkipSuccess => ("skip_success", "5.17", "every write posts a completion"),
            Feature::BufferRing => (
                "buffer_ring",
                "5.19",
                "receive buffers are given back by operations",
            ),
            Feature::MultishotAccept => (
                "multishot_accept",
                "5.19",
                "an accept is armed for each connection",
            ),
            Feature::MultishotReceive => (
                "multishot_receive",
                "6.0",
                "a receive is armed for each arrival",
            ),
        }
    }
}

/// A set of features.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct Features(u16);

impl Features {
    /// What the newest kernels have.
    pub const ALL: Features = Features((1 << Feature::ALL.len()) - 1);

    /// Whether `feature` is one of them.
    #[inline]
    pub fn has(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u16 != 0
    }

    /// This set without `feature`.
    #[must_use]
    pub fn without(self, feature: Feature) -> Self {
        Features(self.0 & !(1 << feature as u16))
    }

    /// All features but those named; the error is the name that none has.
    ///
    /// # Errors
    /// The first unknown name.
    pub fn all_without<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let mut features = Features::ALL;
        for name in names {
            let feature = Feature::ALL.into_iter().find(|known| known.name() == name);
            features = features.without(feature.ok_or(name)?);
        }
        Ok(features)
    }

    /// Those that are in the set.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |&one| self.has(one))
    }

    /// Those that are not.
    pub fn missing(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |&one| !self.has(one))
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_feature_is_taken_away_and_an_unknown_one_is_named() {
        let features = Features::all_without(["ext_arg", "buffer_ring"]);
        assert_eq!(
            features.map(|set| set.missing().collect::<Vec<_>>()),
            Ok(vec![Feature::ExtArg, Feature::BufferRing])
        );
        assert_eq!(Features::all_without(["no"]), Err("no"));
        assert_eq!(Features::ALL.iter().count(), Feature::ALL.len());
        assert_eq!(Features::ALL.missing().count(), 0);
    }
}
