//! A thread with a runtime of its own, for tasks that wake each other thousands of times a second: nothing that one of them
//! does wakes another thread, and all that has come by then is done in one go.

use std::future::Future;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The thread: it ends when this is dropped, and with it all that runs on it.
#[derive(Debug)]
pub struct SingleThread {
    handle: Handle,
    _ends_when_dropped: oneshot::Sender<()>,
}

impl SingleThread {
    /// Starts it under a name of at most 15 bytes.
    ///
    /// # Errors
    /// When the system has no more threads or files.
    pub fn start(name: &str) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (_ends_when_dropped, dropped) = oneshot::channel::<()>();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Nothing is ever sent: it ends when the sender is gone.
            let _ = runtime.block_on(dropped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _ends_when_dropped })
    }

    /// Runs a listener's server on it, as one of `tasks`.
    ///
    /// # Errors
    /// When the listener cannot be moved there.
    pub fn serve<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        tasks: &mut JoinSet<T>,
        listener: TcpListener,
        serve: impl FnOnce(TcpListener) -> F + Send + 'static,
    ) -> std::io::Result<()> {
        let listener = listener.into_std()?;
        let listener = {
            let _within = self.handle.enter();
            TcpListener::from_std(listener)?
        };
        tasks.spawn_on(async move { serve(listener).await }, &self.handle);
        Ok(())
    }

    /// Its runtime.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs something on it, as one of `tasks`.
    pub fn spawn<T: Send + 'static>(
        &self,
        tasks: &mut JoinSet<T>,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        tasks.spawn_on(task, &self.handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_tasks_run_on_its_thread_and_end_with_it() {
        let thread = SingleThread::start("single-test").unwrap();
        let mut tasks = JoinSet::new();
        thread.spawn(&mut tasks, async { std::thread::current().name().map(str::to_owned) });
        assert_eq!(tasks.join_next().await.unwrap().unwrap().as_deref(), Some("single-test"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        thread
            .serve(&mut tasks, listener, |listener| async move {
                let _connection = listener.accept().await;
                std::future::pending().await
            })
            .unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_ok());
        drop(thread);
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
    }
}
