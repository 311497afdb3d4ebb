//! Children that are killed, and main processes that leave jobs behind.

use celeryscope_common::Header;

use super::*;
use crate::celery::{ResultMeta, ResultState, result::Exception};
use crate::pipeline::{Config, Output};
use crate::span::{Span, Status};
use crate::stream::Call;

const MAIN: u32 = 10;
/// Children, the second of which takes the place of the first.
const CHILDREN: [u32; 2] = [11, 12];
/// When the main process looks again after its children, at the latest, and has got around to it.
const LOOKS_AGAIN: u64 = 5300;

fn ms(ms: u64) -> Mono {
    Mono(ms * 1_000_000)
}

fn call(pid: u32, at: u64) -> Call {
    Call {
        enter: ms(at),
        exit: ms(at),
        pid,
        tid: pid,
    }
}

fn process(engine: &mut Engine, kind: Kind, pid: u32, conn: u32, at: u64) {
    engine.advance(ms(at));
    let header = Header {
        pid,
        tid: pid,
        conn: u64::from(conn),
        enter: ms(at).0,
        exit: ms(at).0,
        ..Header::default()
    };
    engine.process_record(&Record::new(kind, header, &[]));
}

/// A child reads a job and accepts it.
fn taken(engine: &mut Engine, child: u32, at: u64) -> AttemptId {
    engine.advance(ms(at));
    let task = pool::Task {
        job: 1,
        name: "app.add",
        id: "id-1",
        retries: Some(0),
        replacements: None,
        root_id: None,
        parent_id: None,
        group: None,
        eta: None,
        expires: None,
        traceparent: None,
    };
    engine.assigned(child, child, MAIN, &task, ms(at));
    let id = engine.job(child, 1).unwrap();
    engine.accepted(id, (child, child), ms(at));
    id
}

/// The same by a new child, which is killed a second later.
fn taken_and_killed(engine: &mut Engine, child: u32, at: u64) {
    process(engine, Kind::Fork, MAIN, child, at);
    taken(engine, child, at);
    process(engine, Kind::Exit, child, 0, at + 1000);
}

fn delivered() -> Engine {
    let mut engine = Engine::new(Arc::new(Config::default()));
    engine.advance(ms(1));
    engine.process(MAIN).pool = Some(Pool::Prefork);
    let message = TaskMessage {
        id: Arc::from("id-1"),
        name: Arc::from("app.add"),
        delivery_tag: Arc::from("tag"),
        ..TaskMessage::default()
    };
    engine.delivered(None, Box::new(message), Arc::from("celery"), call(MAIN, 1));
    engine
}

/// All spans.
fn finished(engine: &mut Engine) -> Vec<Span> {
    engine.finish();
    let span = |output| match output {
        Output::Span(span) => Some(*span),
        _ => None,
    };
    std::iter::from_fn(|| engine.poll()).filter_map(span).collect()
}

/// The main process stores that the child was lost; the spans after that.
fn explained(engine: &mut Engine, at: u64) -> Vec<Span> {
    engine.advance(ms(at));
    let meta = ResultMeta {
        state: ResultState::Failure,
        exception: Some(Exception {
            class: "billiard.exceptions.WorkerLostError".to_owned(),
            ..Exception::default()
        }),
    };
    engine.result("id-1", meta, ms(at), call(MAIN, at));
    finished(engine)
}

fn events(span: &Span) -> Vec<&str> {
    span.events.iter().map(|event| event.name).collect()
}

/// Scenario: a child is killed; its main process looked for it a moment too soon, and stores the failure when it looks again.
/// Guarantees: the lost run shows that failure.
#[test]
fn a_loss_may_be_explained_late() {
    let mut engine = delivered();
    taken_and_killed(&mut engine, CHILDREN[0], 10);
    let spans = explained(&mut engine, 1010 + LOOKS_AGAIN);
    assert_eq!(spans.len(), 1);
    assert_eq!(events(&spans[0]), ["delivered", "exception"]);
}

/// Scenario: the same, and the main process gives the job to another child when it looks again, which is killed as well.
/// Guarantees: two lost runs of one delivery; the failure is the last one's.
#[test]
fn a_job_may_be_given_away_late() {
    let mut engine = delivered();
    taken_and_killed(&mut engine, CHILDREN[0], 10);
    taken_and_killed(&mut engine, CHILDREN[1], 1010 + LOOKS_AGAIN);
    let mut spans = explained(&mut engine, 2100 + LOOKS_AGAIN);
    spans.sort_by_key(|span| span.start);
    let told: Vec<_> = spans.iter().map(events).collect();
    assert_eq!(told, [vec!["delivered"], vec!["delivered", "exception"]]);
    assert_eq!(engine.stats().attempts_undelivered, 0);
}

/// Scenario: a main process is killed that has written a job into a child's pipe; the child reads it, runs it and ends.
/// Guarantees: the run is one of the message that was delivered, and of the worker's service.
#[test]
fn what_is_in_a_pipe_outlives_the_main_process() {
    let mut engine = delivered();
    let name =
        ["service.name", "shop"].map(|text| [&(text.len() as u16).to_ne_bytes(), text.as_bytes()].concat());
    let header = Header {
        pid: MAIN,
        conn: u64::from(MAIN),
        ..Header::default()
    };
    engine.process_record(&Record::new(Kind::Process, header, &name.concat()));
    process(&mut engine, Kind::Fork, MAIN, CHILDREN[0], 2);
    engine.process(CHILDREN[0]);
    process(&mut engine, Kind::Exit, MAIN, 0, 10);
    let id = taken(&mut engine, CHILDREN[0], 20);
    engine.process(CHILDREN[0]).job = None;
    engine.ready(id, Outcome::Success, ms(30), ms(30));
    process(&mut engine, Kind::Exit, CHILDREN[0], 0, 40);
    engine.advance(ms(60_000));
    let spans = finished(&mut engine);
    assert_eq!(spans.len(), 1);
    assert_eq!(events(&spans[0]), ["delivered"]);
    assert_eq!(engine.stats().attempts_undelivered, 0);
    assert_eq!(
        spans[0].process.resource,
        [("service.name".to_owned(), "shop".to_owned())]
    );
}

/// Scenario: a main process is killed that holds a message and has given it to no child.
/// Guarantees: no run is made of it.
#[test]
fn what_is_in_no_pipe_goes_elsewhere() {
    let mut engine = delivered();
    process(&mut engine, Kind::Exit, MAIN, 0, 10);
    engine.advance(ms(10_000));
    assert_eq!(engine.held().attempts_held, 0);
    assert_eq!(finished(&mut engine).len(), 0);
    assert_eq!(engine.stats().attempts_unstarted, 1);
}

/// Scenario: a worker without pipes acknowledges early and is killed, its last task begun: no result of it was ever seen; one of another
/// task's was; the same for a task without results, and of a worker that ends by itself; and a task that it has not acknowledged.
/// Guarantees: the task is lost only where its end would have been seen, else its end is unknown.
#[test]
fn what_a_worker_leaves_open_is_lost_if_its_end_would_show() {
    const KILLED: u32 = 9;
    for (shows, ignored, acked, status, lost) in [
        (false, false, true, KILLED, false),
        (true, false, true, KILLED, true),
        (true, false, true, 0, false),
        (true, true, true, KILLED, false),
        (false, false, false, KILLED, true),
    ] {
        let mut engine = Engine::new(Arc::new(Config::default()));
        engine.advance(ms(1));
        engine.process(MAIN).pool = Some(Pool::Threads);
        for (id, name) in [("id-0", "app.first"), ("id-1", "app.last")] {
            let message = TaskMessage {
                id: Arc::from(id),
                name: Arc::from(name),
                delivery_tag: Arc::from(id),
                ignore_result: ignored && id == "id-1",
                ..TaskMessage::default()
            };
            engine.delivered(None, Box::new(message), Arc::from("celery"), call(MAIN, 1));
        }
        let result = |engine: &mut Engine, id: &str, state, at| {
            let meta = ResultMeta {
                state,
                exception: None,
            };
            engine.result(id, meta, ms(at), call(MAIN, at));
        };
        if shows {
            engine.acked("id-0", call(MAIN, 2));
            result(&mut engine, "id-0", ResultState::Success, 3);
        }
        if acked {
            engine.acked("id-1", call(MAIN, 4));
        } else {
            result(&mut engine, "id-1", ResultState::Started, 4);
        }
        process(&mut engine, Kind::Exit, MAIN, status, 10);
        let spans = finished(&mut engine);
        let of_last = spans.iter().filter(|span| *span.name == *"run app.last");
        let failed: Vec<_> = of_last
            .map(|span| matches!(span.status, Status::Error(_)))
            .collect();
        assert_eq!(failed, [lost], "{spans:?}");
    }
}

/// Scenario: a child runs the last task of a chord's header within a chain, fetches the header's results and sends the callback, as
/// Celery before 5.7 does: it names the chain's task before the chord as its parent. Then it sends another message that does.
/// Guarantees: the callback is the run's that sent it, with links to the header's publishes; the other is nobody's.
#[test]
fn callback_of_a_chord_in_a_chain() {
    let mut engine = delivered();
    process(&mut engine, Kind::Fork, MAIN, CHILDREN[0], 2);
    let id = taken(&mut engine, CHILDREN[0], 10);
    let of_chain = |id: &str| {
        Box::new(TaskMessage {
            id: Arc::from(id),
            name: Arc::from(id),
            root_id: Some(Arc::from("first")),
            parent_id: Some(Arc::from("first")),
            group: (id == "header").then(|| Arc::from("group")),
            ..TaskMessage::default()
        })
    };
    engine.attempts.get_mut(&id).unwrap().message.root_id = Some(Arc::from("first"));
    let send = |engine: &mut Engine, pid: u32, name: &str, at: u64| {
        engine.published(
            (at, 0),
            None,
            of_chain(name),
            Arc::from("celery"),
            ms(at),
            call(pid, at),
        );
    };
    send(&mut engine, MAIN, "header", 11);
    engine.process(CHILDREN[0]).chord = Some("group".to_owned());
    send(&mut engine, CHILDREN[0], "callback", 12);
    send(&mut engine, CHILDREN[0], "other", 13);
    engine.processes.get_mut(CHILDREN[0]).unwrap().job = None;
    engine.ready(id, Outcome::Success, ms(20), ms(20));
    engine.acked("tag", call(MAIN, 21));
    let spans = finished(&mut engine);
    let named = |name: &str| spans.iter().find(|span| *span.name == *name).unwrap();
    let (callback, other) = (named("publish callback"), named("publish other"));
    assert_eq!(callback.parent, Some(named("run app.add").span_id));
    let linked: Vec<_> = callback.links.iter().map(|link| link.span_id).collect();
    assert_eq!(linked, [named("publish header").span_id]);
    assert_eq!((other.parent, other.links.len()), (None, 0));
}

/// Scenario: one message goes into two queues that are bound to its exchange; then it is sent again, as another with the same id.
/// Guarantees: a publish span each time it was sent; the copy is counted.
#[test]
fn copies_in_further_queues_are_one_publish() {
    let mut engine = Engine::new(Arc::new(Config::default()));
    engine.advance(ms(1));
    for (n, tag) in [(1, "tag-1"), (2, "tag-1"), (3, "tag-2")] {
        let message = TaskMessage {
            id: Arc::from("id-1"),
            name: Arc::from("app.add"),
            delivery_tag: Arc::from(tag),
            ..TaskMessage::default()
        };
        let queue = Arc::from(format!("queue-{n}"));
        engine.published((n, 0), None, Box::new(message), queue, ms(n), call(MAIN, n));
        engine.publish_ended((n, 0), Some(ms(n)));
    }
    assert_eq!(finished(&mut engine).len(), 2);
    let stats = engine.stats();
    assert_eq!((stats.publishes, stats.publishes_copied), (2, 1));
}
