//! The loop between the state machine and its IO: the next thing to tell, one at a time.

use std::collections::VecDeque;

use etcd_client::Client;
use tokio::sync::mpsc;

use super::connection::Connection;
use super::fsm::{Command, Input, Plan, SessionFsm};
use super::{SessionError, SessionEvent, SessionSpec};
use crate::clock;
use crate::config::StoreConfig;

/// Drives one session. While nobody asks for the next output nothing is read: that is the backpressure.
pub(crate) struct Driver {
    fsm: SessionFsm,
    connection: Connection,
    outputs: VecDeque<Command>,
}

impl Driver {
    pub(crate) fn new(store: StoreConfig, plan: Plan) -> Self {
        Self { fsm: SessionFsm::new(plan, clock::seed()), connection: Connection::new(store), outputs: VecDeque::new() }
    }

    /// The next [`Command::Emit`] or [`Command::Records`]. May be cancelled.
    pub(crate) async fn next(&mut self) -> Command {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            let input = tokio::select! {
                biased;
                input = self.connection.next() => input,
                () = clock::sleep_until(self.fsm.deadline()) => Input::Tick,
            };
            self.take(input);
        }
    }

    /// The client of the standing connection.
    pub(crate) fn client(&self) -> Option<Client> {
        self.connection.client().cloned()
    }

    /// Someone else's request found the connection unusable.
    pub(crate) fn fail(&mut self, reason: SessionError) {
        self.take(Input::Failed(reason));
    }

    fn take(&mut self, input: Input) {
        for command in self.fsm.on(input, clock::now()) {
            match command {
                Command::Emit(_) | Command::Records { .. } => self.outputs.push_back(command),
                other => self.connection.execute(other),
            }
        }
    }
}

/// A session's whole life; ends with its consumer.
pub(super) async fn run(spec: SessionSpec, tx: mpsc::Sender<SessionEvent>) {
    let SessionSpec { store, heartbeat, first, watches } = spec;
    let mut driver = Driver::new(store, Plan { heartbeat, first, watches });
    loop {
        let output = tokio::select! {
            () = tx.closed() => return,
            output = driver.next() => output,
        };
        if tx.send(event(output)).await.is_err() {
            return;
        }
    }
}

fn event(output: Command) -> SessionEvent {
    match output {
        Command::Emit(event) => event,
        Command::Records { watch, epoch, revision, upserts, deletes, expired } => {
            let upserts = upserts.into_iter().map(|r| (r.key, r.value)).collect();
            SessionEvent::Delta { watch, epoch, revision, upserts, deletes, expired }
        }
        other => unreachable!("{other:?} is the connection's"),
    }
}
