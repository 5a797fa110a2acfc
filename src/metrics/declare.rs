/// Declares the numbers, each once: as a plain one that a shard counts with, as an atomic one that other threads read, as
/// a field of [`Metrics`](super::Metrics), and as a [`Sample`](super::Sample).
macro_rules! metrics {
    (
        often { $($(#[doc = $often_doc:literal])+ $often:ident: $often_kind:ident $often_name:literal,)+ }
        seldom { $($(#[doc = $seldom_doc:literal])+ $seldom:ident: $seldom_kind:ident $seldom_name:literal,)+ }
        elsewhere { $($(#[doc = $else_doc:literal])+ $else:ident: $else_kind:ident $else_name:literal,)+ }
        families {
            $($(#[doc = $family_doc:literal])+ $family:ident($total:ident, $count:ident): $by:ident $label:literal
            $family_name:literal,)+
        }
    ) => {
        /// The numbers of one shard: only its own thread touches them.
        ///
        /// Those that change seldom are reached through `Deref`: to change one notes that they are to be
        /// published.
        #[derive(Debug, Default, Clone)]
        pub(crate) struct Counters {
            $(pub(crate) $often: u64,)+
            busy: Nanos,
            seldom: SeldomCounters,
            is_changed: bool,
        }

        #[derive(Debug, Default, Clone)]
        pub(crate) struct SeldomCounters {
            $(pub(crate) $seldom: u64,)+
            $($family: [u64; $by::ALL.len()],)+
            slowest_turn: Nanos,
        }

        impl std::ops::Deref for Counters {
            type Target = SeldomCounters;

            fn deref(&self) -> &SeldomCounters {
                &self.seldom
            }
        }

        impl std::ops::DerefMut for Counters {
            #[inline]
            fn deref_mut(&mut self) -> &mut SeldomCounters {
                self.is_changed = true;
                &mut self.seldom
            }
        }

        impl SeldomCounters {
            $(pub(crate) fn $count(&mut self, by: $by) {
                if let Some(count) = self.$family.get_mut(by as usize) {
                    *count += 1;
                }
            })+
        }

        /// The same, for readers on other threads: each shard stores into its own once per turn.
        #[derive(Debug, Default)]
        pub(crate) struct SharedCounters {
            $($often: AtomicU64,)+
            $($seldom: AtomicU64,)+
            $($family: [AtomicU64; $by::ALL.len()],)+
            busy: AtomicU64,
            slowest_turn: AtomicU64,
            crowd: Arc<Crowd>,
        }

        impl SharedCounters {
            #[inline]
            fn store_often(&self, counters: &Counters) {
                $(self.$often.store(counters.$often, Relaxed);)+
            }

            #[cold]
            fn store_seldom(&self, counters: &SeldomCounters) {
                $(self.$seldom.store(counters.$seldom, Relaxed);)+
                $(for (shared, own) in self.$family.iter().zip(&counters.$family) {
                    shared.store(*own, Relaxed);
                })+
                self.slowest_turn.store(counters.slowest_turn, Relaxed);
            }

            pub(crate) fn add_to(&self, metrics: &mut Metrics) {
                $(metrics.$often += self.$often.load(Relaxed);)+
                $(metrics.$seldom += self.$seldom.load(Relaxed);)+
                $(for (sum, shared) in metrics.$family.counts.iter_mut().zip(&self.$family) {
                    *sum += shared.load(Relaxed);
                })+
                let nanos = |shared: &AtomicU64| {
                    Duration::from_nanos(shared.load(Relaxed))
                };
                metrics.busy += nanos(&self.busy);
                metrics.slowest_turn = metrics.slowest_turn.max(nanos(&self.slowest_turn));
            }
        }

        /// A snapshot of a server's numbers, summed over its shards. See
        /// [`ServerHandle::metrics`](crate::ServerHandle::metrics).
        ///
        /// Each shard publishes its numbers at the end of each turn, so those of different shards may be a turn apart,
        /// and those of a shard whose callback blocks are as they were before. Counters only rise; gauges are as they
        /// were at the end of that turn. Counters and gauges are told apart by [`Sample::kind`].
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[doc = $often_doc])+ pub $often: u64,)+
            $($(#[doc = $seldom_doc])+ pub $seldom: u64,)+
            $($(#[doc = $else_doc])+ pub $else: u64,)+
            /// Time that shards have spent in turns, waiting excluded; see [`Rates::busy_share`](crate::Rates::busy_share).
            pub busy: Duration,
            /// The longest turn since the server was started, waiting excluded.
            pub slowest_turn: Duration,
            /// How long ago the server was started.
            pub uptime: Duration,
            $($family: ByLabel<$by, { $by::ALL.len() }>,)+
        }

        impl Default for Metrics {
            fn default() -> Self {
                Self {
                    $($often: 0,)+
                    $($seldom: 0,)+
                    $($else: 0,)+
                    busy: Duration::ZERO,
                    slowest_turn: Duration::ZERO,
                    uptime: Duration::ZERO,
                    $($family: ByLabel { counts: [0; $by::ALL.len()], labels: $by::ALL },)+
                }
            }
        }

        impl Metrics {
            $($(#[doc = $family_doc])+
            #[must_use]
            pub fn $family(&self, by: $by) -> u64 {
                self.$family.counts.get(by as usize).copied().unwrap_or_default()
            }

            #[doc = concat!("Returns the sum of [`", stringify!($family), "`](Self::", stringify!($family), ") over all.")]
            #[must_use]
            pub fn $total(&self) -> u64 {
                self.$family.counts.iter().sum()
            })+

            fn add(&mut self, other: &Self) {
                $(self.$often += other.$often;)+
                $(self.$seldom += other.$seldom;)+
                $(self.$else += other.$else;)+
                $(for (sum, more) in self.$family.counts.iter_mut().zip(&other.$family.counts) {
                    *sum += more;
                })+
            }

            fn clear_gauges(&mut self) {
                $(SampleKind::$often_kind.clear_gauge(&mut self.$often);)+
                $(SampleKind::$seldom_kind.clear_gauge(&mut self.$seldom);)+
                $(SampleKind::$else_kind.clear_gauge(&mut self.$else);)+
            }

            /// Subtracts the counters of an earlier snapshot; gauges stay as they are.
            fn count_from(&mut self, earlier: &Self) {
                $(SampleKind::$often_kind.count_from(&mut self.$often, earlier.$often);)+
                $(SampleKind::$seldom_kind.count_from(&mut self.$seldom, earlier.$seldom);)+
                $(SampleKind::$else_kind.count_from(&mut self.$else, earlier.$else);)+
                $(for (count, before) in self.$family.counts.iter_mut().zip(&earlier.$family.counts) {
                    *count = count.saturating_sub(*before);
                })+
            }

            fn collect(&self, samples: &mut Vec<Sample>) {
                $(samples.push(Sample::number(
                    $often_name, SampleKind::$often_kind, concat!($($often_doc),+), self.$often,
                ));)+
                $(samples.push(Sample::number(
                    $seldom_name, SampleKind::$seldom_kind, concat!($($seldom_doc),+), self.$seldom,
                ));)+
                $(samples.push(Sample::number(
                    $else_name, SampleKind::$else_kind, concat!($($else_doc),+), self.$else,
                ));)+
                $(for by in $by::ALL {
                    let sample = Sample::number(
                        $family_name, SampleKind::Counter, concat!($($family_doc),+), self.$family(by),
                    );
                    samples.push(sample.with_label($label, by.name()));
                })+
            }
        }
    };
}

pub(super) use metrics;
