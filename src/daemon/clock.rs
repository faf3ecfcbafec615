//! The only reader of the clock.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    sys::{
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

/// Monotonic time, for waits and durations.
#[expect(clippy::disallowed_methods, reason = "everybody else asks here")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970 by the wall clock; zero on a machine whose clock is before that.
#[expect(clippy::disallowed_methods, reason = "everybody else asks here")]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Waits until the wall clock has come to `seconds` since 1970, by itself or because somebody set it.
pub async fn reached(seconds: u64) {
    while unix_seconds() < seconds {
        sleep(TICK).await;
    }
}

/// Tells when the wall clock jumps, which it also does when the machine wakes from sleep.
#[derive(Debug)]
pub struct Jumps {
    /// The timer's descriptor once more, for the runtime.
    ready: AsyncFd<OwnedFd>,
    timer: TimerFd,
}

impl Jumps {
    /// Begins to watch; must be called within a tokio runtime.
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; a descriptor of our own stays the same until it is dropped"
    )]
    pub fn watch() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        arm(&timer)?;
        let ready = AsyncFd::with_interest(timer.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        Ok(Self { ready, timer })
    }

    /// Waits for the next jump; may be given up and asked for again.
    pub async fn next(&self) {
        loop {
            let Ok(mut ready) = self.ready.readable().await else { return std::future::pending().await };
            // The kernel says that the clock was set by cancelling a timer that would never have gone off.
            let canceled = nix::unistd::read(&self.timer, &mut [0; 8]) == Err(Errno::ECANCELED);
            ready.clear_ready();
            if canceled {
                if let Err(error) = arm(&self.timer) {
                    tracing::warn!(%error, "jumps of the clock are not seen any more");
                }
                return;
            }
        }
    }
}

fn arm(timer: &TimerFd) -> nix::Result<()> {
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(TimeSpec::new(NEVER, 0)), flags)
}

/// Time between two looks at a clock that is waited for.
const TICK: Duration = Duration::from_secs(1);

/// Seconds since 1970; the year 2200.
const NEVER: i64 = 7_258_118_400;
